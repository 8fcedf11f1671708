package sandbox

import (
	"slices"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
)

// Egress is what a sandbox may reach, and what it was refused.
type Egress struct {
	Mode  egress.Mode
	Rules []egress.Grant // in force, with those that the mode brings along
	// Enforced tells that the gateway enforces the mode and the rules now; when it doesn't, Why says why, and nothing gets
	// out, unless it says otherwise.
	Enforced bool
	Why      string
	Mend     fault.Hint // what mends that
	Gap      string     // the promise that is not kept here beside that, if there is one, for the host lacks something
	Denials  []Denial   // the latest last
}

// Lifted are the denials of a human's in a sandbox that count no more in the mode unrestricted.
func (e Egress) Lifted() []egress.Grant {
	return slices.DeleteFunc(slices.Clone(e.Rules), func(g egress.Grant) bool { return !g.Deny || !g.ByHuman() })
}

// Denial is a connection that was refused.
type Denial struct {
	Domain  string // empty when the sandbox dialled an address that no name of its own stands for
	Address string
	Port    uint16
	Reason  string
	Count   int // in a row
	At      time.Time
}

// Connection is what became of one connection of a sandbox, or is becoming of it.
type Connection struct {
	ID, Owner, Sandbox, Lineage string // whose; ID is the backend's
	Fate                        Fate
	Domain                      string // empty when it has no name
	Address                     string
	Port                        uint16
	From                        uint16 // the sandbox's own port
	Reason                      string
	Once                        string // the grant for one connection that let it out
	Count                       int    // how many connections it stands for, where it isn't one
	At                          time.Time
}

// Where says where it goes, in the form that a rule has.
func (c Connection) Where() string {
	return Denial{Domain: c.Domain, Address: c.Address, Port: c.Port}.Where()
}

// Fate is what became of a connection.
type Fate string

// The fates. Held is one that waits for an answer; Failed one that was allowed and could not be made.
const (
	ConnectionAllowed Fate = "allowed"
	ConnectionDenied  Fate = "denied"
	ConnectionHeld    Fate = "held"
	ConnectionCut     Fate = "cut"
	ConnectionFailed  Fate = "failed"
	ConnectionEnded   Fate = "ended"
)

// Where says what a denied connection was to, in the form that a rule has.
func (d Denial) Where() string {
	host := d.Domain
	if host == "" {
		host = d.Address
	}
	if host == "" {
		return "any place" // what was refused before it was looked at
	}
	return egress.Ask(host, d.Port)
}

// EgressEdit changes the mode of a sandbox and its own rules.
type EgressEdit func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error)
