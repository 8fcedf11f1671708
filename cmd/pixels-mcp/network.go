package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/egress"
	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox/manager"
)

func (a *cli) networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Show and change what a sandbox may reach",
		Long: "network shows and changes what a sandbox may reach. Changes are in force at once, without a restart; what is\n" +
			"no longer allowed is cut.",
		Args: knownCommand, RunE: help,
	}
	cmd.AddCommand(complete(a.networkShow(), false, a.someBox), a.networkGrants(), complete(a.networkCheck(), false, a.someBox, nothing),
		complete(a.networkSet(), false, a.someBox, a.someMode), complete(a.networkAllow(), true, a.someBox, nothing),
		complete(a.networkDeny(), true, a.someBox, a.someDomain), complete(a.networkRevoke(), true, a.someBox, a.someDomain))
	return cmd
}

// change is a command about what a sandbox may reach, or shows it. It takes the name of the sandbox and what follows.
type change struct {
	cobra.Command // with its texts and its arguments

	human func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error)
	// owner is the call of who is no human for the service of this machine; nil where there is none.
	owner func(name string, rest []string) (policy.Verb, map[string]any)
}

func (a *cli) networkChange(c change) *cobra.Command {
	asJSON := false
	cmd := &c.Command
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, rest := args[0], args[1:]
		served, err := a.served()
		if err != nil {
			return err
		}
		if served != nil && c.owner != nil {
			verb, arguments := c.owner(name, rest)
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error { return v.askForNetwork(ctx, name, verb, arguments, asJSON) })
		}
		return a.withHuman(func(m *manager.Human) error {
			change, err := c.human(cmd.Context(), m, name, rest)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(view.EgressOf(change, view.Terminal))
			}
			if len(change.Missing) > 0 {
				fmt.Fprintf(a.out, "not allowed before: %s\n", texts(change.Missing))
			}
			fmt.Fprintln(a.out, view.EgressText(name, change, view.Terminal))
			return nil
		})
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *cli) networkShow() *cobra.Command {
	return a.networkChange(change{
		Command: cobra.Command{
			Use: "show NAME", Short: "Show mode, rules, what was denied lately, and whether all that is enforced",
			Args: exactly(1, "the name of a sandbox"),
		},
		human: func(ctx context.Context, m *manager.Human, name string, _ []string) (manager.EgressChange, error) {
			e, err := m.Egress(ctx, m.As(a.owner), name)
			return manager.EgressChange{Network: e}, err
		},
		owner: func(name string, _ []string) (policy.Verb, map[string]any) {
			return policy.VerbEgress, map[string]any{"name": name}
		},
	})
}

func (a *cli) networkSet() *cobra.Command {
	yes := false
	cmd := a.networkChange(change{
		Command: cobra.Command{
			Use: "set NAME MODE", Short: "Set the mode: " + modes(), Example: "  " + program.Name + " network set work allowlist",
			Args: exactly(2, "the name of a sandbox and a mode"),
		},
		human: func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			mode := egress.Mode(rest[0])
			if mode == egress.Unrestricted && !yes {
				if err := a.mayLift(ctx, m, name); err != nil {
					return manager.EgressChange{}, err
				}
			}
			if mode != egress.None {
				var err error
				if m, err = a.proven(m); err != nil {
					return manager.EgressChange{}, err
				}
			}
			return m.SetEgress(ctx, m.As(a.owner), name, mode)
		},
		owner: func(name string, rest []string) (policy.Verb, map[string]any) {
			return policy.VerbEgress, map[string]any{"name": name, "mode": rest[0]}
		},
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "lift denials without asking")
	return cmd
}

func (a *cli) networkAllow() *cobra.Command {
	var reason, ttl string
	cmd := a.networkChange(change{
		Command: cobra.Command{
			Use: "allow NAME DOMAIN...", Short: "Allow domains (example.com, *.example.com, example.com:8443) or addresses (10.1.2.0/24:5432)",
			Example: "  " + program.Name + " network allow work api.example.com '*.example.org'", Args: nameAndDomains,
		},
		human: func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
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
		},
		owner: func(name string, rest []string) (policy.Verb, map[string]any) {
			arguments := map[string]any{"name": name, "domains": rest, "reason": cmp.Or(reason, "asked for at the command line")}
			if ttl != "" {
				arguments["ttl"] = ttl
			}
			return policy.VerbAllowDomain, arguments
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "what for; kept with the rule")
	cmd.Flags().StringVar(&ttl, "ttl", "", "for how long, as 30m, 2h or 7d (default as long as the policy lets a grant last)")
	return cmd
}

func (a *cli) networkDeny() *cobra.Command {
	return a.networkChange(change{
		Command: cobra.Command{
			Use: "deny NAME DOMAIN...", Short: "Deny domains or addresses, and cut connections there",
			Example: "  " + program.Name + " network deny work api.example.com", Args: nameAndDomains,
		},
		human: func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			return m.Deny(ctx, m.As(a.owner), name, rest)
		},
		owner: func(name string, rest []string) (policy.Verb, map[string]any) {
			return policy.VerbDenyDomain, map[string]any{"name": name, "domains": rest}
		},
	})
}

func (a *cli) networkRevoke() *cobra.Command {
	return a.networkChange(change{
		Command: cobra.Command{
			Use: "revoke NAME DOMAIN...", Short: "Take back grants for domains, and cut connections there; what else allows them stays",
			Example: "  " + program.Name + " network revoke work api.example.com", Args: nameAndDomains,
		},
		human: func(ctx context.Context, m *manager.Human, name string, rest []string) (manager.EgressChange, error) {
			return m.RevokeRules(ctx, a.owner, name, rest)
		},
	})
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
