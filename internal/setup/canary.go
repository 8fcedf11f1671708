package setup

import (
	"context"
	"strings"
	"time"

	"pixels/incus"
	"pixels/internal/program"
)

// canary tries the ways out of a sandbox, unless that was done since the gateway has its program. What it finds is no
// failure of set-up: sandboxes without a network and without restrictions work, and the others are refused.
func (j *job) canary(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	have, err := p.Gateway(ctx)
	if err != nil || have == nil {
		return err
	}
	rules, ruled, err := incus.HostRulesOf(ctx, p)
	if err != nil {
		return err
	}
	if there, _ := rules.Present(ctx); have.Held && (have.Edge || ruled && !there) {
		j.had(start, "canary: nothing gets past the gateway")
		return nil
	}
	found, err := incus.Canary(ctx, p.Config())
	if err != nil {
		return err
	}
	j.canaryGaps(found)
	if len(found.Ways) > 0 {
		j.warn("look at the firewall and the networks of this machine, then run `"+program.Name+" doctor`",
			"canary: %s; sandboxes are refused the modes that would not hold, agent and allowlist", strings.Join(found.Ways, "; "))
		return nil
	}
	j.did(start, "canary: nothing gets past the gateway")
	return nil
}

// canaryGaps says what a canary found at the host, and what it could not try.
func (j *job) canaryGaps(found incus.CanaryFound) {
	fix := setUp + " as root"
	if !j.local() {
		fix = "have root put the rules that `" + program.Name + " doctor` prints in place on the machine of the bridge, then run doctor again"
	}
	for _, gap := range found.Gaps {
		j.warn(fix, "canary: %s", gap)
	}
	for _, untried := range found.Untried {
		j.note("canary: not tried from here: %s", untried)
	}
}

// checkGateway looks whether the one way out is there, and whether it is the only one.
func (j *job) checkGateway(ctx context.Context, p *incus.Provisioner) {
	have, err := p.Gateway(ctx)
	switch {
	case err != nil:
		j.fail("", "gateway: %v", err)
		return
	case have == nil:
		j.fail(setUp, "gateway: there is none, so that sandboxes have no network")
		return
	case !have.Placed:
		j.fail(setUp, "gateway: %s is configured for another network", have.Name)
		return
	case !have.Running:
		j.fail(setUp, "gateway: %s is stopped", have.Name)
		return
	case !have.Current:
		j.warn(setUp, "gateway: %s has the program of another version of pixels", have.Name)
	default:
		j.good("gateway: %s, current", have.Name)
	}
	start := time.Now()
	found, err := incus.Canary(ctx, p.Config())
	j.canaryGaps(found)
	switch {
	case err != nil:
		j.fail("", "canary: %v", err)
	case len(found.Ways) > 0:
		j.fail("look at the firewall and the networks of this machine; until it finds nothing, sandboxes are refused the modes agent and allowlist",
			"canary: something gets past the gateway: %s", strings.Join(found.Ways, "; "))
	default:
		j.good("canary: nothing gets past the gateway (%s)", took(start))
	}
}
