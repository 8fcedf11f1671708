package incus

import (
	"context"
	"errors"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fault"
	"pixels/internal/plain"
	"pixels/sandbox"
)

// Egress implements sandbox.Backend.
func (b *Backend) Egress(ctx context.Context, id string) (sandbox.Egress, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Egress{}, err
	}
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return sandbox.Egress{}, b.failed(err, "look at what the sandbox may reach")
	}
	mode, own, err := egressOf(inst.Config)
	e := sandbox.Egress{Mode: mode, Rules: b.config.Presets.For(mode, own).Rules, Enforced: true}
	if err != nil {
		e.Enforced, e.Why = false, err.Error()
		return e, nil
	}
	if mode == egress.None && !networked(*inst) || inst.StatusCode == api.Stopped {
		return e, nil // there is nothing to enforce it on
	}
	reply, err := b.wiresOf(inst.Config).ask(ctx, gateway.Request{Op: gateway.Status, Sandbox: id})
	switch {
	case errors.Is(err, gateway.ErrNoSandbox):
		e.Enforced, e.Why = false, "it has no way out at all: its wire is gone, and a server that runs plugs it again within seconds"
	case err != nil:
		e.Enforced, e.Why = false, "the gateway does not answer: "+err.Error()
		if hints := fault.Hints(err); len(hints) > 0 {
			e.Mend = hints[0]
		}
	case reply.Wire.Mark != mark(inst.Config):
		e.Enforced, e.Why = false, "the gateway has another policy, and a server that runs corrects that within seconds; until then that one is enforced"
	}
	if found := b.leaks(ctx, b.wiresOf(inst.Config)); found != "" && mode != egress.Unrestricted {
		e.Enforced, e.Why, e.Mend = false, leaky(found), fault.Hint{Action: fault.TryGateway}
	}
	if mode != egress.None {
		e.Gap = b.openEdge(ctx, b.wiresOf(inst.Config))
	}
	e.Denials = denials(reply.Denials)
	e.Rules = append(e.Rules, reply.Grants...)
	return e, nil
}

// GrantOnce implements sandbox.Backend.
func (b *Backend) GrantOnce(ctx context.Context, id string, grant egress.Grant) error {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return b.failed(err, "grant one connection")
	}
	wires := b.wiresOf(inst.Config)
	reply, err := wires.ask(ctx, gateway.Request{Op: gateway.Status, Sandbox: id})
	if err == nil {
		_, err = wires.ask(ctx, gateway.Request{Op: gateway.Once, Sandbox: id, Index: reply.Wire.Index, Grant: &grant})
	}
	if errors.Is(err, gateway.ErrNoSandbox) {
		return fault.About(sandbox.ErrState, fault.Sandbox(inst.Config[nameKey]), "has no network just now: that is the wrong state; start it, or grant it for a time")
	}
	return b.failed(err, "grant one connection")
}

// Denials implements sandbox.Backend.
func (b *Backend) Denials(ctx context.Context, id string, within time.Duration) ([]sandbox.Denial, error) {
	wires := b.wires
	if inst := b.cache.lately()[id]; inst != nil {
		if inst.ExpandedDevices[card] == nil {
			return nil, nil
		}
		wires = b.wiresOf(inst.Config)
	}
	reply, err := wires.ask(ctx, gateway.Request{Op: gateway.Denials, Sandbox: id, Within: within})
	if errors.Is(err, gateway.ErrNoSandbox) {
		return nil, nil
	}
	return denials(reply.Denials), b.failed(err, "ask what was denied")
}

// maxDenial bounds each text of a denial, in bytes: much of it is the word of strangers.
const maxDenial = 300

func denials(events []gateway.Event) (out []sandbox.Denial) {
	for _, e := range events {
		out = append(out, sandbox.Denial{Domain: plain.Line(e.Domain, maxDenial), Address: plain.Line(e.Address, maxDenial), Port: e.Port, Reason: plain.Line(e.Reason, maxDenial), Count: e.Count, At: e.Time})
	}
	return out
}
