package sandbox

import (
	"context"
	"io"
	"time"

	"pixels/egress"
)

// Spec is what a new sandbox is to be.
type Spec struct {
	Name, Owner string
	Image       string // the backend's name of an image; "" with no SourceID means the default image
	SourceID    string // ID of the sandbox to copy; Image is then empty
	SourceLabel string // the checkpoint of SourceID to copy; empty means its present state
	SourceReach string // what SourceID's Reach was when Egress and Rules were made from it; empty if they weren't
	From        string // what to show as the origin
	Lineage     string // that of the source; empty begins one
	Egress      egress.Mode
	Rules       []egress.Grant // its own, beside those that the mode brings along
	Labels      map[string]string
	Env         map[string]string // environment of every command run in it; a copy keeps its source's beside these
	Limits      Limits
	Nesting     bool      // containers may run inside, which opens more of the kernel to it
	ExpiresAt   time.Time // end of the lease; the zero value means that there is none
	// Early asks to return as soon as Exec can be called, which then waits until the sandbox is ready.
	Early bool
}

// CopyOf makes a spec a copy of a checkpoint, or of the present state when label is empty, with the source's egress mode
// unless it has its own, and with the source's rules.
func (s *Spec) CopyOf(source Sandbox, label string) {
	s.SourceID, s.SourceLabel, s.SourceReach, s.From, s.Lineage = source.ID, label, source.Reach, source.Name, source.Lineage
	if label != "" {
		s.From += ":" + label
	}
	if s.Egress == "" {
		s.Egress = source.Egress
	}
	s.Rules = egress.Inherited(source.Rules)
}

// MinTTL is the shortest lease.
const MinTTL = time.Minute

// Command is one program to run in a sandbox.
type Command struct {
	Argv           []string // the program and its arguments; empty when Shell is set
	Shell          string   // a line for the shell: bash where the image has it
	Cwd            string   // empty means the user's home
	Env            map[string]string
	Unkept         map[string]string // more of it: what no list of processes, no record and no key must show
	User           string            // name or number; empty means DefaultUser
	Stdin          io.Reader         // nil means an empty one
	KeepStdin      bool              // of a run: it goes on behind Stdin, see Feed
	Stdout, Stderr io.Writer         // nil discards; written to from two goroutines at once

	Terminal *Terminal // nil means that its streams are no terminal
	Console  *Console  // in place of Argv and Shell; it needs a Terminal
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
	FilesBackend

	// List returns the sandboxes of owner, by name. Half-made ones are in it, with the state Creating.
	List(ctx context.Context, owner string) ([]Sandbox, error)
	// Tree returns the sandboxes of an owner and of all below (see package owner), in no order. fresh asks for what other processes made
	// just before, which else may be missing.
	Tree(ctx context.Context, top string, fresh bool) ([]Sandbox, error)
	// Relatives returns the sandboxes of a lineage, also what another process began to make just before.
	Relatives(ctx context.Context, owner, lineage string) ([]Sandbox, error)
	// Get finds a sandbox by owner and name; ErrNotFound.
	Get(ctx context.Context, owner, name string) (Sandbox, error)
	// Create makes and starts a sandbox and returns when it is ready: its host name is its own, /run and /tmp are what
	// they stay, and its address works. Of several creations of one name at once, one wins and the others get ErrExists. It
	// fails with ErrChanged when SourceReach isn't the source's any more at its end.
	Create(ctx context.Context, spec Spec) (Sandbox, error)
	// Destroy ends a sandbox for good, with its checkpoints; ErrNotFound when it is gone. Its name is free at once; the
	// removal may go on in the background, and is taken up again by a Sweep when the process is killed.
	Destroy(ctx context.Context, id string) error
	// SetState starts, stops or pauses a sandbox and returns when it is so; a started one is ready then. One that is so
	// already is left alone. ErrState when there is no way from its state: what is stopped can't be paused.
	SetState(ctx context.Context, id string, state State) error
	// SetEgress changes what a sandbox may reach, at once also for one that runs, and cuts connections that are no longer
	// allowed, which it counts. edit may be called more than once, and its error ends the call with nothing changed.
	SetEgress(ctx context.Context, id string, edit EgressEdit) (cut int, err error)
	// GrantOnce gives a sandbox that runs a grant for one connection, which ends with its wire and is kept nowhere else: it
	// may be lost, and is not used twice. One whose end is over is taken back. ErrState when the sandbox is on no wire.
	GrantOnce(ctx context.Context, id string, grant egress.Grant) error
	// Egress returns what a sandbox may reach, and whether that is enforced.
	Egress(ctx context.Context, id string) (Egress, error)
	// Denials returns what a sandbox was refused in the last time.
	Denials(ctx context.Context, id string, within time.Duration) ([]Denial, error)
	// Watch hears of the connections of all sandboxes until ctx ends, or it fails; hear must not block. Connections that no
	// rule allows are held a moment while somebody watches, for Hold to say how long.
	Watch(ctx context.Context, hear func(Connection)) error
	// Hold says for how long connections of a sandbox to a domain are to be held that are held now; 0 denies them. One that
	// is gone, or has none, is no error.
	Hold(ctx context.Context, id, domain string, port uint16, d time.Duration) error
	// Process tells whose a connection is by the sandbox's own port: a command, and the call that started it. That is what
	// the sandbox says, and may be empty or a lie.
	Process(ctx context.Context, id string, port uint16) (command, call string, err error)
	// Gateway names the gateway that Watch listens to, so that of several who could one does.
	Gateway() string
	// Rename gives a sandbox another name, and its host name with it; ErrExists.
	Rename(ctx context.Context, id, name string) error
	// Resize changes the limits of a sandbox that are not zero, at once also of one that runs. ErrInvalid when its disk would be
	// smaller than what it holds.
	Resize(ctx context.Context, id string, l Limits) error
	// SetExpiry moves the end of a sandbox's lease.
	SetExpiry(ctx context.Context, id string, at time.Time) error
	// CreateCheckpoint snapshots the file system of a sandbox; ErrExists when it has one of that label.
	CreateCheckpoint(ctx context.Context, id, label, description string) (Checkpoint, error)
	// CheckpointsCost tells whether checkpoints take disk beside their sandbox's limit; where not, a sandbox with all its
	// checkpoints holds no more than that. CheckpointCost is how much a new one of a sandbox would take, in bytes.
	CheckpointsCost(ctx context.Context) bool
	CheckpointCost(ctx context.Context, id string) (int64, error)
	// Checkpoints returns those of a sandbox, the oldest first.
	Checkpoints(ctx context.Context, id string) ([]Checkpoint, error)
	// DeleteCheckpoint removes one; ErrNotFound. What was made from it stays.
	DeleteCheckpoint(ctx context.Context, id, label string) error
	// Restore puts a sandbox's file system back to a checkpoint and starts it anew: all that ran in it ends. Name, lease,
	// labels, environment, limits and all checkpoints, later ones too, stay. The sandbox may have another ID and address
	// afterwards; when it fails the sandbox is what it was.
	Restore(ctx context.Context, id, label string) (Sandbox, error)
	// Touch notes that a sandbox is used, or about to be, and tells whether it sleeps, so that it must be woken first. What isn't
	// there is no error.
	Touch(ctx context.Context, id string) (asleep bool, err error)
	// Wake starts a sandbox that sleeps, and returns when it is ready. One that was woken by another call meanwhile is awake.
	Wake(ctx context.Context, id string) error
	// Sweep destroys or stops sandboxes of any owner whose lease is over, stops those that are not used, and ends or undoes what
	// processes that were killed left half-done. Any number of processes may do so at once.
	Sweep(ctx context.Context, rules SweepRules) (Swept, error)
	// Close waits for what goes on in the background, unless the backend answers no more: then the next Sweep takes it up. No
	// other method is called after it.
	Close()
	// Exec runs a command to its end and returns its exit code: ExitNotFound when there is no such program. When ctx
	// ends, the whole process tree inside is ended before Exec returns ctx's error.
	Exec(ctx context.Context, id string, c Command) (exitCode int, err error)
	// Sessions returns the console sessions of a user in a sandbox that runs, by name.
	Sessions(ctx context.Context, id, user string) ([]Session, error)
	// StartRun starts a command that goes on by itself, whatever becomes of this process, and returns its ID within the
	// sandbox. After timeout, unless it is 0, it is ended with all that it started. Its Stdout and Stderr are not written
	// to: the run keeps them. What can't be run is a run that has ended.
	StartRun(ctx context.Context, id string, c Command, timeout time.Duration) (run string, err error)
	// Runs returns the runs of a sandbox that are kept, the oldest first, without their outputs.
	Runs(ctx context.Context, id string) ([]Run, error)
	// Feed writes to the stdin of a run and signals it; ErrNotFound, and ErrState where it has ended, or reads none. What it does not
	// read is not written: the error says how much was.
	Feed(ctx context.Context, id, run string, f Feed) error
	// LookAtRun returns a run once it has ended, or after a time; ErrNotFound.
	LookAtRun(ctx context.Context, id, run string, q RunQuery) (Run, error)
}
