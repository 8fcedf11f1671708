package manager

import (
	"fmt"

	"pixels/policy"
	"pixels/policy/approver"
	"pixels/sandbox"
)

// Door is where humans come in, by a channel that no agent has. It is made with its Manager, so that who has the Manager alone
// lets nobody in as a human.
type Door struct{ manager *Manager }

// NewWithDoor returns a Manager over a backend, and the door of its humans.
func NewWithDoor(b sandbox.Backend, d Defaults) (*Manager, Door) {
	m := New(b, d)
	return m, Door{m}
}

// Human lets a human in. channel names the way they came, on record.
func (d Door) Human(channel string) *Human { return &Human{Manager: d.manager, channel: channel} }

// Human has what a human alone may do, beside all that agents may: for that, give the Caller that As returns.
type Human struct {
	*Manager
	channel string
	proven  bool
}

// As is the human as a caller for what is an owner's.
func (h *Human) As(owner string) Caller {
	return Caller{Owner: owner, Channel: h.channel, human: true, proven: h.proven}
}

// call begins a call of the human's that is no single owner's.
func (h *Human) call() *call { return h.begin(h.As("")) }

// Proven is the human who has shown what the policy's level of approval asks for. Whoever calls it has checked that: see Prove.
func (h *Human) Proven() *Human {
	proven := *h
	proven.proven = true
	return &proven
}

// Prove checks a passphrase where the policy asks for one, and returns the human for calls that need it. At the level of
// passkeys no passphrase will do.
func (h *Human) Prove(passphrase string) (*Human, error) {
	switch level := h.Approval(); level {
	case policy.Terminal:
		return h, nil
	case policy.Passphrase:
		if err := h.Approver().CheckPassphrase(passphrase); err != nil {
			return nil, err
		}
		return h.Proven(), nil
	default:
		return nil, fmt.Errorf("%w: the policy asks for a %s, which the page takes", approver.ErrProof, level)
	}
}
