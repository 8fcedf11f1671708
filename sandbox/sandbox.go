// Package sandbox is the model of the project: what a sandbox and a checkpoint are, and what a Backend must do. It knows no
// MCP, no Incus, no policy and no terminal.
package sandbox

import (
	"time"

	"pixels/egress"
	"pixels/internal/fault"
)

// Error is why a call failed.
type Error = fault.Error

// What a caller tells apart. Every error of this package and of a Backend is of one of these kinds.
const (
	ErrNotFound    = fault.NotFound
	ErrExists      = fault.Exists
	ErrInvalid     = fault.Invalid
	ErrState       = fault.State
	ErrChanged     = fault.Changed
	ErrUnsupported = fault.Unsupported
	ErrDenied      = fault.Denied
	ErrUnavailable = fault.Unavailable // the backend can't be reached; no request was carried out
	ErrFailed      = fault.Failed      // a fault of the backend or the host, which only its operator can mend
)

// State is what a sandbox is doing.
type State string

// The states of a sandbox. Creating is one that is being made, or was left half-made by a killed process; Broken is one
// that the backend can't describe.
const (
	Creating State = "creating"
	Running  State = "running"
	Stopped  State = "stopped"
	Paused   State = "paused"
	Broken   State = "error"
)

// Limits caps what a sandbox may use. A zero field means no cap of ours.
type Limits struct {
	CPU       int   // cores
	Memory    int64 // bytes
	Disk      int64 // bytes of the root file system, the base image may count
	Processes int   // tasks
}

// Sandbox is one disposable machine, as its owner sees it.
type Sandbox struct {
	ID      string // the backend's own name for it; a restore may change it
	Name    string
	State   State
	Address string // IPv4; empty while it has none
	Owner   string
	From    string // the NAME:LABEL or image that it was made from
	Egress  egress.Mode
	Rules   []egress.Grant // its own, beside those that its mode brings along
	Labels  map[string]string
	Limits  Limits

	CreatedAt time.Time
	ExpiresAt time.Time // when its lease ends, which destroys it, or stops it for a Grace; the zero time is never
	// DestroyedAt is when one is destroyed that was stopped at the end of its lease; the zero time of all others.
	DestroyedAt time.Time
	// Asleep tells that it was stopped because nobody used it: it wakes when it is used.
	Asleep bool

	// Lineage is what a sandbox, its clones, and theirs have in common.
	Lineage string
	// Reach names what it may reach: it is another one whenever that was changed. Empty where the backend has no such name.
	Reach string
	// Requests are those that were raised when it was made, by ID.
	Requests []string
}

// Grace is how long a sandbox that was stopped at the end of its lease can be extended; then it is destroyed.
const Grace = 7 * 24 * time.Hour

// SweepRules say what a sweep does with sandboxes that are whole.
type SweepRules struct {
	Idle      time.Duration // those that are not used for so long are stopped; 0 is never
	StopAtEnd bool          // those whose lease ends are stopped for a Grace, and not destroyed at once
}

// Swept is what a sweep did.
type Swept struct {
	Destroyed []Sandbox // their lease was over
	Stopped   []Sandbox // their lease was over; they are destroyed later
	Idle      []Sandbox // stopped because nobody used them
}

// Checkpoint is a labelled snapshot of a sandbox's file system.
type Checkpoint struct {
	Label       string
	Description string
	CreatedAt   time.Time
	Size        int64 // bytes on disk that it alone holds, as far as the pool knows
	Cost        int64 // bytes by which it counts against the owner's quota beside its sandbox's disk
}

// Or returns l with what is zero filled from d.
func (l Limits) Or(d Limits) Limits {
	if l.CPU == 0 {
		l.CPU = d.CPU
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	if l.Disk == 0 {
		l.Disk = d.Disk
	}
	if l.Processes == 0 {
		l.Processes = d.Processes
	}
	return l
}
