package sandbox

import (
	"context"
	"io"
)

// Spec is what a new sandbox is to be.
type Spec struct {
	Name, Owner string
	Image       string // the backend's name of an image; "" with no SourceID means the default image
	SourceID    string // ID of the sandbox to copy; Image is then empty
	SourceLabel string // the checkpoint of SourceID to copy
	From        string // what to show as the origin
	Egress      Egress
	Labels      map[string]string
	Env         map[string]string // environment of every command run in it; a copy keeps its source's beside these
	Limits      Limits
}

// Command is one program to run in a sandbox.
type Command struct {
	Argv           []string // the program and its arguments; empty when Shell is set
	Shell          string   // a line for the shell: bash where the image has it
	Cwd            string   // empty means the user's home
	Env            map[string]string
	User           string    // name or number; empty means DefaultUser
	Stdin          io.Reader // nil means an empty one
	Stdout, Stderr io.Writer // nil discards; written to from two goroutines at once
}

// DefaultUser is who commands run as.
const DefaultUser = "pixel"

// Exit codes of a command that could not be run, as POSIX shells give them.
const (
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// Backend runs sandboxes. All methods may be called at once from several goroutines, and several processes may use one
// backend at once. A method that fails, or whose context ends, leaves nothing half-made behind.
type Backend interface {
	// List returns the sandboxes of owner, by name. Half-made ones are in it, with the state Creating.
	List(ctx context.Context, owner string) ([]Sandbox, error)
	// Get finds a sandbox by owner and name; ErrNotFound.
	Get(ctx context.Context, owner, name string) (Sandbox, error)
	// Create makes and starts a sandbox and returns when it is ready: its host name is its own, /run and /tmp are what
	// they stay, and its address works. Of several creations of one name at once, one wins and the others get ErrExists.
	Create(ctx context.Context, spec Spec) (Sandbox, error)
	// Destroy ends and removes a sandbox with its checkpoints; ErrNotFound when it is gone.
	Destroy(ctx context.Context, id string) error
	// CreateCheckpoint snapshots the file system of a sandbox; ErrExists when it has one of that label.
	CreateCheckpoint(ctx context.Context, id, label, description string) (Checkpoint, error)
	// Checkpoints returns those of a sandbox, the oldest first.
	Checkpoints(ctx context.Context, id string) ([]Checkpoint, error)
	// Exec runs a command to its end and returns its exit code: ExitNotFound when there is no such program. When ctx
	// ends, the whole process tree inside is ended before Exec returns ctx's error.
	Exec(ctx context.Context, id string, c Command) (exitCode int, err error)
}
