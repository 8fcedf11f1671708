package view

import (
	"fmt"
	"time"

	"pixels/egress"
	"pixels/internal/units"
	"pixels/sandbox"
)

// Count says how many of something there are.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Sandbox is a sandbox as JSON. What it has none of is left out, which of one that could not be made is all but its name.
type Sandbox struct {
	Name      string            `json:"name"`
	State     sandbox.State     `json:"state,omitempty"`
	Address   string            `json:"address,omitempty" jsonschema:"IPv4"`
	Owner     string            `json:"owner,omitempty"`
	From      string            `json:"from,omitempty" jsonschema:"checkpoint or image"`
	Egress    egress.Mode       `json:"egress,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	CreatedAt time.Time         `json:"created_at,omitzero"`
	ExpiresAt time.Time         `json:"expires_at,omitzero"`
	Destroyed time.Time         `json:"destroyed_at,omitzero"`
	Asleep    bool              `json:"asleep,omitempty"`
	Requests  []string          `json:"requests,omitempty" jsonschema:"for a human; give them to wait"`
}

// SandboxOf is what of a sandbox is shown.
func SandboxOf(s sandbox.Sandbox) Sandbox {
	return Sandbox{
		Name: s.Name, State: s.State, Address: s.Address, Owner: s.Owner, From: s.From, Egress: s.Egress, Labels: s.Labels,
		CreatedAt: s.CreatedAt, ExpiresAt: s.ExpiresAt, Destroyed: s.DestroyedAt, Asleep: s.Asleep, Requests: s.Requests,
	}
}

// SandboxLine describes a sandbox in one line.
func SandboxLine(s sandbox.Sandbox) string {
	text := fmt.Sprintf("%s: %s, from %s, egress %s", s.Name, s.State, s.From, s.Egress)
	if s.Address != "" {
		text += ", address " + s.Address
	}
	if s.Asleep {
		text += ", asleep until it is used"
	}
	if !s.DestroyedAt.IsZero() {
		text += ", its lease is over, destroyed at " + Clock(s.DestroyedAt)
	} else if !s.ExpiresAt.IsZero() {
		text += ", until " + Clock(s.ExpiresAt)
	}
	if len(s.Labels) > 0 {
		text += fmt.Sprintf(", labels %v", s.Labels)
	}
	return text
}

// Checkpoint is a checkpoint as JSON.
type Checkpoint struct {
	Label       string    `json:"label"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	Size        int64     `json:"size" jsonschema:"bytes on disk that it alone holds, as far as the pool knows"`
}

// CheckpointOf is what of a checkpoint is shown.
func CheckpointOf(c sandbox.Checkpoint) Checkpoint {
	return Checkpoint{Label: c.Label, Description: c.Description, CreatedAt: c.CreatedAt, Size: c.Size}
}

// CheckpointLine describes a checkpoint of a sandbox in one line.
func CheckpointLine(name string, c sandbox.Checkpoint) string {
	text := fmt.Sprintf("%s:%s, %s, %s old, %s of its own", name, c.Label, Clock(c.CreatedAt), Ago(c.CreatedAt), units.Size(c.Size))
	if c.Description != "" {
		text += ": " + c.Description
	}
	return text
}
