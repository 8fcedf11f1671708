package main

import (
	"fmt"
	"io"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"pixels/internal/config"
)

// app is what all commands share: the streams, the flags for all, and the configuration once it is read.
type app struct {
	in       io.Reader
	out, err io.Writer

	configPath string
	owner      string
	flags      map[string]*string // of settings, by key
	config     config.Config
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "pixels-mcp",
		Short: "Disposable Linux machines for AI coding agents, on your own hardware",
		Long: "Pixels gives AI coding agents disposable Linux machines on your own hardware.\n" +
			"Started by an MCP client it serves tools over stdio; from a terminal it does the same by hand.",
		Example: "  pixels-mcp setup                                   # once: Incus, pool, network, base image\n" +
			"  pixels-mcp create base                             # a sandbox from the base image\n" +
			"  pixels-mcp checkpoint create base --label ready    # keep its file system as base:ready\n" +
			"  pixels-mcp create feature-auth --from base:ready   # another one from there\n" +
			"  pixels-mcp exec feature-auth -- make test\n" +
			"  pixels-mcp destroy base feature-auth",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.load(cmd) },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
	})
	p := root.PersistentFlags()
	p.StringVar(&a.configPath, "config", os.Getenv("PIXELS_CONFIG"), "configuration `file` (default config.toml in XDG_CONFIG_HOME/pixels)")
	p.StringVar(&a.owner, "owner", os.Getenv("PIXELS_OWNER"), "whose sandboxes (default the local user)")
	a.flags = map[string]*string{}
	for _, s := range config.Settings() {
		a.flags[s.Key] = p.String(s.Flag, "", s.Usage)
		// Nineteen lines in every help would hide what a command's own flags are; `pixels-mcp config` lists them.
		_ = p.MarkHidden(s.Flag)
	}
	root.AddGroup(
		&cobra.Group{ID: "sandboxes", Title: "Sandboxes:"},
		&cobra.Group{ID: "host", Title: "This machine:"},
	)
	root.AddCommand(grouped("host", a.setupCommand(), a.doctorCommand(), a.cleanCommand(), a.configCommand(), versionCommand())...)
	root.SetHelpCommandGroupID("host")
	return root
}

// grouped puts commands under a heading of the help.
func grouped(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.GroupID = id
	}
	return commands
}

// load reads the configuration and settles who the owner is.
func (a *app) load(cmd *cobra.Command) error {
	path, named := a.configPath, a.configPath != ""
	if !named {
		var err error
		if path, err = config.Path(); err != nil {
			return err
		}
	}
	given := map[string]string{}
	for _, s := range config.Settings() {
		if cmd.Flags().Changed(s.Flag) {
			given[s.Key] = *a.flags[s.Key]
		}
	}
	c, err := config.Load(path, named, os.Environ(), given)
	if err != nil {
		return err
	}
	a.config, a.configPath = c, path
	if a.owner == "" {
		u, err := user.Current()
		if err != nil {
			return fmt.Errorf("find out who the local user is (or give --owner): %w", err)
		}
		a.owner = u.Username
	}
	return nil
}

// exactly wants n arguments, and says which.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("`%s` wants %s; see `%s --help`", cmd.CommandPath(), what, cmd.CommandPath())}
		}
		return nil
	}
}

var noArguments = exactly(0, "no arguments")
