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
	Name      string            `json:"name"`
	State     State             `json:"state"`
	Address   string            `json:"address" jsonschema:"IPv4; empty while it has none"`
	Owner     string            `json:"owner"`
	From      string            `json:"from" jsonschema:"the NAME:LABEL or image it was made from"`
	Egress    egress.Mode       `json:"egress"`
	Labels    map[string]string `json:"labels"`
	CreatedAt time.Time         `json:"created_at"`
	ExpiresAt time.Time         `json:"expires_at" jsonschema:"when it is destroyed by itself; extend_sandbox moves it"`

	// Requests are set when it is made.
	Requests []string `json:"requests,omitempty" jsonschema:"for what of allow a human must decide; give them to wait"`

	Rules  []egress.Grant `json:"-"` // its own, beside those that its mode brings along
	Limits Limits         `json:"-"`
	// Lineage is what a sandbox, its clones, and theirs have in common.
	Lineage string `json:"-"`
	// Reach names what it may reach: it is another one whenever that was changed. Empty where the backend has no such name.
	Reach string `json:"-"`
	ID    string `json:"-"` // the backend's own name for it; a restore may change it
}

// Checkpoint is a labelled snapshot of a sandbox's file system.
type Checkpoint struct {
	Label       string    `json:"label"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	Size        int64     `json:"size" jsonschema:"bytes on disk that it alone holds, as far as the pool knows"`
	Cost        int64     `json:"-"` // bytes by which it counts against the owner's quota beside its sandbox's disk
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
