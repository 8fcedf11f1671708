package manager

import (
	"bytes"
	"context"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// EditRequest asks for text in a file to be replaced.
type EditRequest struct {
	Name, Path string
	Old, New   string
	All        bool // each occurrence; else there must be exactly one
}

// EditFile replaces text in a file, and returns how often.
func (m *Manager) EditFile(ctx context.Context, caller Caller, r EditRequest) (p string, replaced int, err error) {
	c := m.begin(caller)
	if r.Old == "" || r.Old == r.New {
		return "", 0, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.WriteFile}, "old_text is empty, or what new_text is: give the text to be replaced, and another one as new_text")
	}
	o, p, err := c.open(ctx, policy.Call{Verb: policy.VerbEditFile, Owner: c.Owner, Sandbox: r.Name}, r.Name, r.Path)
	if err != nil {
		return "", 0, err
	}
	defer o.Close()
	b, err := o.readAll("edit", p, maxEdit)
	if err != nil {
		return "", 0, err
	}
	replaced = bytes.Count(b, []byte(r.Old))
	switch {
	case replaced == 0:
		return "", 0, fault.Errorf(sandbox.ErrNotFound, fault.Hint{Action: fault.ReadFile}, "edit %s: old_text is %s in it: it must be the file's text exactly, with its blanks and line ends", p, sandbox.ErrNotFound)
	case replaced > 1 && !r.All:
		return "", 0, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "edit %s: old_text is in it %d times, which is invalid: give more of what is around it, or set replace_all", p, replaced)
	}
	b = bytes.ReplaceAll(b, []byte(r.Old), []byte(r.New))
	return p, replaced, fileError("edit", p, o.write(p, WriteRequest{Content: b}))
}
