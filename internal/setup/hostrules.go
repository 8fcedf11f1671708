package setup

import (
	"context"
	"time"

	"pixels/incus"
	"pixels/internal/program"
)

// hostRules is the step of set-up.
func (j *job) hostRules(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	r, ok, err := incus.HostRulesOf(ctx, p)
	if err != nil || !ok {
		return err
	}
	if !j.local() || !j.root {
		j.note("the host of the bridge %s should have rules of its own, which `"+program.Name+" doctor` prints", r.Bridge)
		return nil
	}
	there, err := r.Ensure(ctx)
	switch {
	case err != nil:
		j.warn("see `"+program.Name+" doctor`", "this machine has no rules of its own for the bridge %s: %v", r.Bridge, err)
	case there:
		j.had(start, "firewall: this machine's rules for the bridge %s", r.Bridge)
	default:
		j.did(start, "firewall: this machine's rules for the bridge %s", r.Bridge)
	}
	return nil
}

// checkHostRules looks for the rules, and prints them where they are not seen.
func (j *job) checkHostRules(ctx context.Context, p *incus.Provisioner) {
	r, ok, err := incus.HostRulesOf(ctx, p)
	if err != nil || !ok {
		return // the network's own check says so
	}
	if j.local() {
		if there, err := r.Present(ctx); err == nil && there {
			j.good("firewall: this machine's rules for the bridge %s", r.Bridge)
			return
		} else if err == nil {
			j.warn(setUp+" as root", "firewall: this machine has no rules of its own for the bridge %s: names that lead to its addresses reach its services", r.Bridge)
			return
		}
	}
	j.note("firewall: on the machine of the bridge %s root should have these rules (nft -f FILE):\n%s", r.Bridge, r.Text())
}
