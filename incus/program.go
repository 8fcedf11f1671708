package incus

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/guestbin"
)

// programProperty is the property of an image that says which of our programs it has, by path.
const programProperty = "user.pixels.program"

// program returns the path of our program in an instance, and puts it there when it is made from an image, or a
// checkpoint, that lacks it: an image of someone else's, or one of an older version.
func (b *Backend) program(ctx context.Context, inst *api.Instance) (string, error) {
	at, err := guestbin.Path()
	if err != nil || inst.Config["image."+programProperty] == at {
		return at, err
	}
	if _, there := b.programs.Load(inst.Name); there {
		return at, nil
	}
	sh := func(line, argument string) (int, error) {
		return b.exec(ctx, inst.Name, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", line, "sh", argument}}, nil, nil, nil)
	}
	content, err := guestbin.Content()
	if err != nil {
		return "", err
	}
	code, err := sh(`[ -x "$1" ]`, at)
	if err == nil && code != 0 {
		// Under another name first: a command may be run at the same time.
		part := at + "." + rand.Text()
		if code, err = sh(`mkdir -p "$1"`, path.Dir(at)); err == nil && code == 0 {
			err = b.server.commit(ctx).CreateInstanceFile(inst.Name, part, client.InstanceFileArgs{Type: "file", Mode: 0o755, WriteMode: "overwrite", Content: bytes.NewReader(content)})
		}
		if err == nil {
			code, err = sh(`mv -f "$1" "${1%.*}"`, part)
		}
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		return "", fmt.Errorf("put the program that runs commands into it: %w", err)
	}
	b.programs.Store(inst.Name, true)
	return at, nil
}
