package setup

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"pixels/incus"
	"pixels/internal/program"
)

// shortName links the short name of the program beside it, for people. What is called so and is not ours stays.
func (j *job) shortName(context.Context, *incus.Provisioner) error {
	start := time.Now()
	if filepath.Base(j.Program) != program.Server {
		return nil
	}
	link := filepath.Join(filepath.Dir(j.Program), program.Short)
	if to, err := os.Readlink(link); err == nil && filepath.Base(to) == program.Server {
		j.had(start, "command %s", link)
		return nil
	}
	switch err := os.Symlink(program.Server, link); {
	case os.IsExist(err):
		j.note("another program is called %s; type %s instead", link, program.Server)
	case err != nil:
		j.note("no command %s for people: %v", link, err)
	default:
		j.did(start, "command %s, the same by a shorter name", link)
	}
	return nil
}
