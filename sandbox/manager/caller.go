package manager

import (
	"pixels/policy"
	"pixels/policy/ledger"
)

// Caller is who makes a call, and by which way it came. A human's is made by Human.As alone.
type Caller struct {
	Owner   string
	Channel string       // by which it came, for the record
	Call    string       // its ID, by which its records are found together, and the commands that it runs
	Caps    *policy.Caps // bound it; nil where it came by no token
	Trial   bool         // it ends with its verdict, as an error of the type Trial

	// Woken hears of a sandbox that was woken for the call; may be nil.
	Woken func(name string)

	human  bool // what agents would have to ask a human for is theirs to do
	proven bool // who makes it has shown what the policy's level of approval asks for
}

// Agent is the caller of an owner's agent.
func Agent(owner string) Caller { return Caller{Owner: owner, Channel: "mcp"} }

// call is a call under way. All of it is judged by one policy: the one that was in force when it began.
type call struct {
	*Manager
	Caller
	set *policy.Set
}

func (m *Manager) begin(c Caller) *call { return &call{m, c, m.gate.policy.Now()} }

// rules are what the policy says for an owner.
func (c *call) rules(owner string) *policy.Rules { return c.set.For(owner) }

// record puts something down about the call.
func (c *call) record(r ledger.Record) {
	r.Channel, r.Call = c.Channel, c.Caller.Call
	c.gate.store.Add(r)
}
