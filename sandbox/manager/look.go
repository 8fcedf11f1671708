package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/plain"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Look is an open request with all that a human should see of it before they answer.
type Look struct {
	ledger.Request
	Handle  string        // names all of this
	Usual   time.Duration // how long a grant lasts unless the answer says otherwise
	Display string        // the rule in Unicode, where that is another text
	Alike   string        // what is wrong with the name, if it may be taken for another one
	Opens   string        // what a yes opens besides
	Askers  []LookAsker
	Lineage int // how many sandboxes an answer for the lineage is for
	Refused int // how often a human said no to it before
}

// LookAsker is a sandbox that asks, as it is now.
type LookAsker struct {
	ledger.Asker
	Gone    bool
	Labels  []string // KEY=VALUE
	Reaches string   // what it may reach already
}

// Looks returns requests as a human is shown them. Where the backend can't be reached, what it knows is left out.
func (h *Human) Looks(ctx context.Context, requests []ledger.Request) ([]Look, error) {
	c := h.call()
	if len(requests) == 0 {
		return nil, nil
	}
	boxes, err := h.Everybodys(ctx)
	if err != nil && !errors.Is(err, sandbox.ErrUnavailable) {
		return nil, err
	}
	known := err == nil
	refused, err := c.gate.store.Refusals()
	if err != nil {
		return nil, err
	}
	of := map[[2]string][]sandbox.Sandbox{}
	for _, s := range boxes {
		key := [2]string{s.Owner, s.Lineage}
		of[key] = append(of[key], s)
	}
	out := make([]Look, 0, len(requests))
	for _, r := range requests {
		relatives := of[[2]string{r.Owner, r.Lineage}]
		look := Look{Request: r, Usual: c.usual(r), Handle: r.Handle(c.usual(r)), Refused: refused[[3]string{r.Owner, r.Lineage, r.Subject}], Lineage: len(relatives)}
		if rule, err := egress.ParseDomainRule(r.Subject); err == nil {
			look.Alike, look.Opens = egress.Alike(rule.Domain), rule.Opens()
			if shown := egress.Display(rule.Domain); shown != rule.Domain {
				look.Display = strings.Replace(r.Subject, rule.Domain, shown, 1)
			}
		}
		for _, a := range r.Asked {
			asker := LookAsker{Asker: a, Gone: known}
			if i := slices.IndexFunc(relatives, func(s sandbox.Sandbox) bool { return a.Is(s.Name, s.CreatedAt) }); i >= 0 {
				asker.Gone, asker.Reaches = false, reaches(relatives[i])
				for key, value := range relatives[i].Labels {
					asker.Labels = append(asker.Labels, key+"="+value)
				}
				slices.Sort(asker.Labels)
			}
			look.Askers = append(look.Askers, asker)
		}
		out = append(out, look)
	}
	return out, nil
}

// reaches says in a few words what a sandbox may reach.
func reaches(s sandbox.Sandbox) string {
	const most = 5
	var names []string
	for _, g := range egress.Lasting(s.Rules) {
		if !g.Deny && !slices.Contains(names, g.Rule.String()) {
			names = append(names, g.Rule.String())
		}
	}
	text := map[egress.Mode]string{egress.None: "nothing", egress.Agent: "what the preset agent has", egress.Unrestricted: "everything"}[s.Egress]
	if s.Egress == egress.Allowlist && len(names) == 0 {
		return "nothing yet"
	}
	if s.Egress != egress.Agent && s.Egress != egress.Allowlist || len(names) == 0 {
		return text
	}
	list := plain.Some(names, most)
	if text != "" {
		return text + ", " + list
	}
	return list
}

// A grant for more sandboxes, or for longer, wants to be said twice.
const (
	manySandboxes = 20
	longGrant     = 24 * time.Hour
)

// Weight says what is much about an approval, so that it is asked for once more by that; empty when nothing is.
func (m *Manager) Weight(ctx context.Context, a Approval) (string, error) {
	return m.begin(Caller{}).weight(ctx, a)
}

func (c *call) weight(ctx context.Context, a Approval) (string, error) {
	r, err := c.gate.store.Request(a.ID)
	if err != nil {
		return "", err
	}
	var what []string
	if rule, err := egress.ParseDomainRule(r.Subject); err == nil && rule.Wide() != "" {
		what = append(what, rule.Wide())
	}
	if a.Scope != policy.Once {
		boxes, err := c.asking(ctx, r, cmp.Or(a.Scope, policy.Askers))
		if err != nil {
			return "", err
		}
		if len(boxes) > manySandboxes {
			what = append(what, fmt.Sprintf("to %d sandboxes", len(boxes)))
		}
	}
	_, longest := c.grantFor(r) // more is refused
	if lasting := cmp.Or(a.For, c.usual(r)); lasting > longGrant && lasting <= longest {
		what = append(what, "for "+units.Duration(lasting))
	}
	return strings.Join(what, ", "), nil
}
