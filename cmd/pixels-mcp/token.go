package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

func (a *cli) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Let agents call by HTTP: create, list, revoke",
		Long: "token makes and ends the tokens by which clients call `" + program.Name + " serve --http`. Its name is the owner of all that its\n" +
			"holder makes. A token bounds its holder below what the policy says, and a token below another one, as orch/worker-1, never\n" +
			"has more than that, shares its quota, and ends with it.",
		Args: knownCommand, RunE: help,
	}
	cmd.AddCommand(a.tokenCreate(), a.tokenList(), complete(a.tokenRevoke(), true, nothing))
	return cmd
}

// capFlags are the flags of what a token bounds.
type capFlags struct {
	sandboxes, checkpoints, cpu int64
	caps                        view.Caps
	egress, domains, tools      []string
	offered                     offered
}

func (c *capFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int64Var(&c.sandboxes, "sandboxes", 0, "sandboxes at most, with those of tokens below it")
	f.Int64Var(&c.checkpoints, "checkpoints", 0, "checkpoints at most")
	f.Int64Var(&c.cpu, "cpu", 0, "cores of all its sandboxes together")
	f.StringVar(&c.caps.Memory, "memory", "", "memory of all of them together, as 4GiB")
	f.StringVar(&c.caps.Disk, "disk", "", "disk of all of them together, as 20GiB")
	f.StringVar(&c.caps.MaxLease, "max-lease", "", "longest lease, as 8h")
	f.StringSliceVar(&c.egress, "egress", nil, "egress `modes` that its holder may pick, as none,agent")
	f.StringSliceVar(&c.domains, "domains", nil, "`domains` that its holder may ask for, as *.example.com")
	f.StringSliceVar(&c.tools, "tools", nil, "`tools` that its holder may call, as exec,read_file")
	c.offered.flags(f)
}

// limits are those that were given as flags.
func (c *capFlags) limits(cmd *cobra.Command) (policy.Limits, error) {
	given := cmd.Flags().Changed
	for name, to := range map[string]struct {
		n  *int64
		to **int64
	}{"sandboxes": {&c.sandboxes, &c.caps.Sandboxes}, "checkpoints": {&c.checkpoints, &c.caps.Checkpoints}, "cpu": {&c.cpu, &c.caps.CPU}} {
		if given(name) {
			*to.to = to.n
		}
	}
	for name, to := range map[string]struct {
		list *[]string
		to   **[]string
	}{"egress": {&c.egress, &c.caps.Egress}, "domains": {&c.domains, &c.caps.Domains}, "tools": {&c.tools, &c.caps.Tools}} {
		if given(name) {
			*to.to = to.list
		}
	}
	l, err := c.caps.Limits()
	if err != nil {
		return l, usageError{err}
	}
	offered, err := c.offered.tools()
	l.Tools = policy.Both(l.Tools, offered)
	return l, err
}

func (a *cli) tokenCreate() *cobra.Command {
	var caps capFlags
	expires, asJSON := "", false
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token, and print it: it is shown this once",
		Long: "create makes a token and prints it on stdout; it is kept nowhere, so put it where its holder finds it. What the flags\n" +
			"don't bound is as the policy says for the owner NAME, or as for the token above.",
		Example: "  " + program.Name + " token create ci --sandboxes 8 --egress none,agent > ci.token\n" +
			"  " + program.Name + " token create orch/worker-1 --sandboxes 1 --toolsets exec,files",
		Args: exactly(1, "the name of the token"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := caps.limits(cmd)
			if err != nil {
				return err
			}
			t := ledger.Token{Name: args[0], Limits: limits}
			if expires != "" {
				d, err := units.ParseDuration(expires)
				if err != nil {
					return usageError{fmt.Errorf("--expires: %w", err)}
				}
				t.Expires = time.Now().Add(d)
			}
			return a.withHuman(func(m *manager.Human) error {
				secret, err := m.CreateToken(cmd.Context(), t)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(struct {
						Name  string    `json:"name"`
						Token string    `json:"token"`
						Caps  view.Caps `json:"caps"`
					}{t.Name, secret, view.CapsOf(limits)})
				}
				_, err = fmt.Fprintln(a.out, secret)
				return err
			})
		},
	}
	caps.flags(cmd)
	cmd.Flags().StringVar(&expires, "expires", "", "for how long it lasts, as 30d (default until it is revoked)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func (a *cli) tokenList() *cobra.Command {
	asJSON, tree, all := false, false, false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens, with what they bound and what their holders have",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withHuman(func(m *manager.Human) error {
				list, err := m.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				shown, used := []view.Token{}, []string{}
				for _, t := range list {
					if v := view.TokenOf(t); all || v.State == "live" || v.Sandboxes > 0 {
						shown, used = append(shown, v), append(used, when(t.Used))
					}
				}
				if asJSON {
					return a.printJSON(shown)
				}
				if len(shown) == 0 {
					fmt.Fprintf(a.out, "there are no tokens; make one with `%s token create NAME`\n", program.Name)
					return nil
				}
				var rows [][]string
				for i, t := range shown {
					name := t.Name
					if tree {
						if depth := strings.Count(name, "/"); depth > 0 {
							name = "└" + strings.Repeat("─", 2*depth-1) + " " + name[strings.LastIndex(name, "/")+1:]
						}
					}
					rows = append(rows, []string{name, t.State, strconv.Itoa(t.Sandboxes), strconv.Itoa(t.Requests), used[i], t.May()})
				}
				return a.printTable([]string{"NAME", "STATE", "SANDBOXES", "REQUESTS", "USED", "CAPS"}, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&tree, "tree", false, "show which token is below which")
	cmd.Flags().BoolVar(&all, "all", false, "also those that have ended")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func (a *cli) tokenRevoke() *cobra.Command {
	destroy := false
	cmd := &cobra.Command{
		Use:   "revoke NAME...",
		Short: "End tokens, and those below them, at once and for good",
		Long: "revoke ends tokens with all below them: what their holders are connected by ends at once. Their sandboxes stay, for the\n" +
			"holder of the token above and for you (`--owner NAME`), unless --destroy is given.",
		Args: names("the name of a token, or several"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withHuman(func(m *manager.Human) error {
				var all []error
				for _, name := range args {
					r, err := m.RevokeToken(cmd.Context(), name, destroy)
					if err != nil {
						all = append(all, err)
						continue
					}
					ended := strings.Join(r.Tokens, ", ")
					if ended == "" {
						ended = name + " had ended already"
					} else {
						ended = "ended " + ended
					}
					fmt.Fprintln(a.out, ended)
					for what, list := range map[string][]string{"destroyed": r.Destroyed, "these sandboxes stay (--destroy ends them)": r.Left} {
						if len(list) > 0 {
							fmt.Fprintf(a.out, "%s: %s\n", what, strings.Join(list, ", "))
						}
					}
					for box, err := range r.Failed {
						all = append(all, fmt.Errorf("%s: %w", box, err))
					}
				}
				return errors.Join(all...)
			})
		},
	}
	cmd.Flags().BoolVar(&destroy, "destroy", false, "destroy their sandboxes, too")
	return cmd
}
