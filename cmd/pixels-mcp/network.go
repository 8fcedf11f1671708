package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/egress"
	"pixels/internal/app"
	"pixels/internal/fault"
	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// notBesideService refuses what the service of this machine alone can do: it has the policy and the records.
func (a *cli) notBesideService() error {
	if a.direct || !serviceOf(a.servicePath) {
		return nil
	}
	return fmt.Errorf("this machine has a service, which keeps requests and records: use its page, or run this as `sudo -u pixels -H "+program.Name+" ...` (see `ls -l %s`)", a.servicePath)
}

// warn says something on stderr.
func (a *cli) warn(err error) { fmt.Fprintf(a.err, program.Name+": %v\n", err) }

// withApp calls do with what a process works with.
func (a *cli) withApp(do func(*app.App) error) error {
	opened, err := app.Open(a.config, a.policyPath(), func(err error) {
		if notice := manager.Notice(""); errors.As(err, &notice) {
			a.warnOnce(notice)
		} else {
			a.warn(err)
		}
	})
	if err != nil {
		return err
	}
	defer opened.Close()
	return do(opened)
}

// withHuman calls do with the human at the terminal.
func (a *cli) withHuman(do func(*manager.Human) error) error {
	if err := a.notBesideService(); err != nil {
		return err
	}
	return a.withApp(func(opened *app.App) error { return do(opened.Door.Human("cli")) })
}

func (a *cli) networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Show and change what a sandbox may reach",
		Long: "network shows and changes what a sandbox may reach. Changes are in force at once, without a restart; what is\n" +
			"no longer allowed is cut.",
		Args: knownCommand, RunE: help,
	}
	var reason, ttl string
	yes := false
	// ask are the calls that a user of a service makes in place of a human's; nil where there are none.
	change := func(use, short, example string, args cobra.PositionalArgs, ask func(name string, rest []string) (policy.Verb, map[string]any), do func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error)) *cobra.Command {
		asJSON := false
		c := &cobra.Command{
			Use: use, Short: short, Example: example, Args: args,
			RunE: func(cmd *cobra.Command, args []string) error {
				served, err := a.served()
				if err != nil {
					return err
				}
				if served != nil && ask != nil {
					verb, arguments := ask(args[0], args[1:])
					return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
						return v.askForNetwork(ctx, args[0], verb, arguments, asJSON)
					})
				}
				return a.withHuman(func(m *manager.Human) error {
					change, err := do(cmd.Context(), m, args[0], args[1:])
					if err != nil {
						return err
					}
					if asJSON {
						return a.printJSON(view.EgressOf(change, view.Terminal))
					}
					if len(change.Missing) > 0 {
						fmt.Fprintf(a.out, "not allowed before: %s\n", texts(change.Missing))
					}
					fmt.Fprintln(a.out, view.EgressText(args[0], change, view.Terminal))
					return nil
				})
			},
		}
		c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
		return c
	}
	show := change("show NAME", "Show mode, rules, what was denied lately, and whether all that is enforced", "", exactly(1, "the name of a sandbox"),
		func(name string, _ []string) (policy.Verb, map[string]any) {
			return policy.VerbEgress, map[string]any{"name": name}
		},
		func(ctx context.Context, m *manager.Human, name string, _ []string) (manager.EgressChange, error) {
			e, err := m.Egress(ctx, m.As(a.owner), name)
			return manager.EgressChange{Network: e}, err
		})
	set := change("set NAME MODE", "Set the mode: "+modes(), "  "+program.Name+" network set work allowlist", exactly(2, "the name of a sandbox and a mode"),
		func(name string, rest []string) (policy.Verb, map[string]any) {
			return policy.VerbEgress, map[string]any{"name": name, "mode": rest[0]}
		},
		func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			if egress.Mode(rest[0]) == egress.Unrestricted && !yes {
				if err := a.mayLift(ctx, m, name); err != nil {
					return manager.EgressChange{}, err
				}
			}
			if egress.Mode(rest[0]) != egress.None {
				var err error
				if m, err = a.proven(m); err != nil {
					return manager.EgressChange{}, err
				}
			}
			return m.SetEgress(ctx, m.As(a.owner), name, egress.Mode(rest[0]))
		})
	set.Flags().BoolVar(&yes, "yes", false, "lift denials without asking")
	allow := change("allow NAME DOMAIN...", "Allow domains (example.com, *.example.com, example.com:8443) or addresses (10.1.2.0/24:5432)",
		"  "+program.Name+" network allow work api.example.com '*.example.org'", nameAndDomains,
		func(name string, rest []string) (policy.Verb, map[string]any) {
			arguments := map[string]any{"name": name, "domains": rest, "reason": cmp.Or(reason, "asked for at the command line")}
			if ttl != "" {
				arguments["ttl"] = ttl
			}
			return policy.VerbAllowDomain, arguments
		},
		func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			lasting := time.Duration(0)
			if ttl != "" {
				var err error
				if lasting, err = units.ParseDuration(ttl); err != nil {
					return manager.EgressChange{}, usageError{fmt.Errorf("--ttl: %w", err)}
				}
			}
			m, err := a.proven(m)
			if err != nil {
				return manager.EgressChange{}, err
			}
			// As in the first release: who names domains means these, and no longer everything.
			if e, err := m.Egress(ctx, m.As(a.owner), name); err == nil && e.Mode == egress.Unrestricted {
				if _, err := m.SetEgress(ctx, m.As(a.owner), name, egress.Allowlist); err != nil {
					return manager.EgressChange{}, err
				}
				fmt.Fprintf(a.err, "%s reached everything: its egress is %s now; `%s network set %s %s` gives that back\n", name, egress.Allowlist, program.Name, name, egress.Unrestricted)
			}
			got, err := m.Allow(ctx, m.As(a.owner), manager.AllowRequest{Name: name, Domains: rest, Reason: reason, TTL: lasting, Addresses: true})
			return got.EgressChange, err
		})
	allow.Flags().StringVar(&reason, "reason", "", "what for; kept with the rule")
	allow.Flags().StringVar(&ttl, "ttl", "", "for how long, as 30m, 2h or 7d (default as long as the policy lets a grant last)")
	deny := change("deny NAME DOMAIN...", "Deny domains or addresses, and cut connections there", "  "+program.Name+" network deny work api.example.com", nameAndDomains,
		func(name string, rest []string) (policy.Verb, map[string]any) {
			return policy.VerbDenyDomain, map[string]any{"name": name, "domains": rest}
		},
		func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			return m.Deny(ctx, m.As(a.owner), name, rest)
		})
	revoke := change("revoke NAME DOMAIN...", "Take back grants for domains, and cut connections there; what else allows them stays", "  "+program.Name+" network revoke work api.example.com", nameAndDomains,
		nil,
		func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			return m.RevokeRules(ctx, a.owner, name, rest)
		})
	cmd.AddCommand(complete(show, false, a.someBox), a.networkGrants(), complete(a.networkCheck(), false, a.someBox, nothing), complete(set, false, a.someBox, a.someMode),
		complete(allow, true, a.someBox, nothing), complete(deny, true, a.someBox, a.someDomain), complete(revoke, true, a.someBox, a.someDomain))
	return cmd
}

// askForNetwork makes a call about what a sandbox may reach as an owner, and shows that then. What a human must decide is asked for.
func (v *verbs) askForNetwork(ctx context.Context, name string, verb policy.Verb, arguments map[string]any, asJSON bool) error {
	var done struct {
		Requests  []view.Request `json:"requests"`
		Unchanged []string       `json:"unchanged"`
	}
	if verb != policy.VerbEgress {
		if err := v.call(ctx, verb, arguments, &done); err != nil {
			return err
		}
		arguments = map[string]any{"name": name}
	}
	service, err := v.service()
	if err != nil {
		return err
	}
	var now view.Egress
	text, err := service.CallForPeople(ctx, string(policy.VerbEgress), arguments, &now)
	switch {
	case err != nil:
		return err
	case asJSON:
		err = v.printJSON(now)
	default:
		if len(done.Unchanged) > 0 {
			fmt.Fprintf(v.out, "not allowed before: %s\n", strings.Join(done.Unchanged, ", "))
		}
		_, err = fmt.Fprintln(v.out, text)
	}
	var open []string
	for _, r := range done.Requests {
		switch {
		case !r.State.Ended():
			open = append(open, r.ID)
		case r.State != ledger.RequestGranted:
			err = errors.Join(err, fault.Errorf(fault.Denied, fault.Hint{}, "%s is %s %s", r.Domain, r.State, r.Answer))
		}
	}
	return cmp.Or(err, v.asked(open))
}

func nameAndDomains(cmd *cobra.Command, args []string) error {
	if len(args) < 2 {
		return usageError{fmt.Errorf("`%s` wants the name of a sandbox and one domain or more; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())}
	}
	return nil
}

func modes() string {
	var words []string
	for _, m := range egress.Modes {
		words = append(words, string(m))
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func texts(rules []egress.Rule) string {
	var words []string
	for _, r := range rules {
		words = append(words, r.String())
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
