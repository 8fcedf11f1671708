package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/plain"
	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

func (a *cli) networkGrants() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "grants [NAME]",
		Short: "List the grants in force: who gave them, until when, how often they were used",
		Long: "grants lists what was granted beside what modes bring along, of one sandbox or of all of every owner. Take one back\n" +
			"with `requests revoke ID`, or `network revoke NAME DOMAIN`.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("`%s` wants the name of one sandbox, or nothing", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			return a.withRequests(cmd, func(m *manager.Human, owner string) error {
				if name != "" {
					owner = a.owner
				}
				list, err := m.Grants(cmd.Context(), owner, name)
				if err != nil {
					return err
				}
				given, err := m.Allowances(owner)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(struct {
						Grants []manager.Standing  `json:"grants"`
						Policy []manager.Allowance `json:"policy"`
					}{append([]manager.Standing{}, list...), append([]manager.Allowance{}, given...)})
				}
				return a.showGrants(list, given)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *cli) showGrants(list []manager.Standing, given []manager.Allowance) error {
	var rows [][]string
	for _, g := range list {
		until := "ever"
		if !g.Until.IsZero() {
			until = view.Moment(g.Until)
		}
		rows = append(rows, []string{g.Rule.String(), g.Owner + "/" + plain.Some(g.Names, view.SomeNames), until, string(g.Scope), strconv.Itoa(g.Uses), when(g.Last), g.From})
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "nothing is granted")
	} else if err := a.printTable([]string{"RULE", "SANDBOXES", "UNTIL", "SCOPE", "USED", "LAST", "BY"}, rows); err != nil {
		return err
	}
	if len(given) == 0 {
		return nil
	}
	fmt.Fprintln(a.out)
	rows = nil
	for _, p := range given {
		rows = append(rows, []string{p.Rule.String(), p.Owner, string(p.Scope), p.For, strconv.Itoa(p.Given), when(p.Last)})
	}
	return a.printTable([]string{"BY THE POLICY", "OWNER", "SCOPE", "FOR", "GIVEN", "LAST"}, rows)
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return view.Ago(t) + " ago"
}

func (a *cli) requestsRevoke() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID...",
		Short:   "Take back what requests were granted",
		Long:    "revoke takes back what requests were granted, and cuts the connections that it let out. Who asks about the request hears so.",
		Example: "  " + program.Name + " requests revoke req-k3xisscy6f",
		Args:    idsNeeded,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRequests(cmd, func(m *manager.Human, _ string) error {
				var all []error
				for _, handle := range args {
					id, _ := ledger.ParseHandle(handle)
					r, names, err := m.RevokeRequest(cmd.Context(), id, a.by())
					switch {
					case err != nil:
						all = append(all, err)
					case len(names) == 0:
						fmt.Fprintf(a.out, "%s: %s had ended in all sandboxes already\n", r.ID, r.Subject)
					default:
						fmt.Fprintf(a.out, "%s: %s is taken back from %s\n", r.ID, r.Subject, plain.Some(names, view.SomeNames))
					}
				}
				return errors.Join(all...)
			})
		},
	}
}
