// Package manager has the use cases: every request goes through a Manager before a backend sees it, which vets it by the policy
// and puts down what became of it. It knows no MCP, no Incus and no terminal.
package manager

import (
	"time"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Defaults is what a sandbox gets when its creator does not say.
type Defaults struct {
	Image   string
	Egress  egress.Mode
	Presets egress.Presets // rules that modes bring along
	Limits  sandbox.Limits
	Env     map[string]string
	Allow   []egress.Rule // what a new one may reach beside its mode, where that is agent or allowlist

	// SpareImage is taken where Image is not there, which Warn hears of. Empty is none.
	SpareImage string
	Warn       func(error) // may be nil

	// SessionEnv are variables of every command, given with it and kept nowhere.
	SessionEnv map[string]string

	Nesting bool // containers may run inside

	Policy *policy.Policy // nil means the shipped one
	Store  *ledger.Store  // of records and requests; nil means that nothing is on record, and that no human can be asked

	Sweep    sandbox.SweepRules
	Lease    time.Duration // how long a sandbox lives whose creator does not say; 0 means DefaultLease
	MaxLease time.Duration // the longest that one may ask for; 0 means DefaultMaxLease
}

// Notice is a warning that is the same until somebody changes the configuration: to say it once is enough.
type Notice string

// Error is what it says.
func (n Notice) Error() string { return string(n) }

// Leases where the configuration says nothing.
const (
	DefaultLease    = 24 * time.Hour
	DefaultMaxLease = 30 * 24 * time.Hour
)

// Manager vets requests and has a Backend carry them out. It keeps no state: what there is, the backend knows.
type Manager struct {
	read     reader
	gate     *gate
	defaults Defaults
}

// New returns a Manager over a backend.
func New(b sandbox.Backend, d Defaults) *Manager {
	if d.Lease == 0 {
		d.Lease = DefaultLease
	}
	if d.MaxLease == 0 {
		d.MaxLease = max(DefaultMaxLease, d.Lease)
	}
	if d.Policy == nil {
		d.Policy = policy.Shipped()
	}
	if d.Store == nil {
		d.Store = ledger.Noop()
	}
	return &Manager{read: b, gate: &gate{backend: b, policy: d.Policy, store: d.Store}, defaults: d}
}
