package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"pixels/internal/config"
	"pixels/internal/nearest"
	"pixels/internal/program"
	"pixels/internal/server"
	"pixels/sandbox"
)

// cli is what all commands share: the streams, the flags for all, and the configuration once it is read.
type cli struct {
	in       io.Reader
	lines    *bufio.Reader // of in
	out, err io.Writer     // what is printed there harms no terminal
	raw      io.Writer     // the same as out, for what no human reads
	rawErr   io.Writer     // the same as err, for what commands a terminal
	rawMode  bool          // the terminal is a command's: see openScreen

	configFlag string // the file that was named
	configPath string // the file that was read
	owner      string
	verbose    bool               // say more on stderr
	direct     bool               // does it itself, also where a service would
	flags      map[string]*string // of settings, by key

	server      elsewhere
	servicePath string // the socket of this machine's service
	config      config.Config
}

func newRoot(a *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   program.Name,
		Short: "Disposable Linux machines for AI coding agents, on your own hardware",
		Long: "Pixels gives AI coding agents disposable Linux machines on your own hardware.\n" +
			"Started by an MCP client, it serves tools over stdio.",
		Example: "  sudo " + program.Name + " setup     # once: Incus, pool, network, base image\n" +
			"  " + program.Name + " serve          # what an MCP client is to start",
		Args: knownCommand, RunE: help,
		Version:       versionText(),
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.load(cmd) },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
	})
	p := root.PersistentFlags()
	p.StringVar(&a.configFlag, "config", os.Getenv("PIXELS_CONFIG"), "configuration `file` (default config.toml in XDG_CONFIG_HOME/pixels)")
	p.StringVar(&a.owner, "owner", os.Getenv("PIXELS_OWNER"), "whose sandboxes (default the local user)")
	p.BoolVar(&a.direct, "direct", false, "work with Incus oneself, also where this machine has a service for that")
	p.BoolVarP(&a.verbose, "verbose", "v", false, "say on stderr what is done, and how long it took")
	p.StringVar(&a.servicePath, "service", server.Socket, "socket of this machine's service")
	_ = p.MarkHidden("service")
	a.server.flags(root)
	a.flags = map[string]*string{}
	for _, s := range config.Settings() {
		a.flags[s.Key] = p.String(s.Flag, "", s.Usage)
		// A line each in every help would hide what a command's own flags are; `pixels-mcp config` lists them.
		_ = p.MarkHidden(s.Flag)
	}
	root.AddGroup(&cobra.Group{ID: "work", Title: "Work with sandboxes:"}, &cobra.Group{ID: "decide", Title: "Decide what they may do:"}, &cobra.Group{ID: "host", Title: "Look after this machine:"})
	decide, host := a.ofThisMachine()
	for group, commands := range map[string][]*cobra.Command{
		"work": {
			complete(a.createCommand(), true, nothing), complete(a.cloneCommand(), false, a.someCheckpoint), a.listCommand(), complete(a.statusCommand(), false, a.someBox),
			complete(a.stateCommand("start", "Start sandboxes that are stopped", "starting", "Started", sandbox.Running), true, a.boxIn(sandbox.Stopped, sandbox.Paused)),
			complete(a.stateCommand("stop", "Stop sandboxes: what runs in them ends, their files stay", "stopping", "Stopped", sandbox.Stopped), true, a.boxIn(sandbox.Running, sandbox.Paused)),
			complete(a.stateCommand("pause", "Freeze what runs in sandboxes where it is", "pausing", "Paused", sandbox.Paused), true, a.boxIn(sandbox.Running)),
			complete(a.stateCommand("resume", "Let what was paused go on", "resuming", "Resumed", sandbox.Running), true, a.boxIn(sandbox.Paused)),
			complete(a.extendCommand(), false, a.someBox, nothing), complete(a.renameCommand(), false, a.someBox, nothing), complete(a.resizeCommand(), false, a.someBox), complete(a.destroyCommand(), true, a.someBox),
			complete(a.execCommand(), false, a.someBox), complete(a.consoleCommand(), false, a.someBox), complete(a.sessionsCommand(), false, a.someBox),
			complete(a.logsCommand(), false, a.someBox), complete(a.waitCommand(), true, a.someRequest), a.checkpointCommand(),
		},
		"decide": append(decide, a.networkCommand(), a.requestsCommand(), a.auditCommand()),
		"host":   append(host, a.configCommand(), a.mcpCommand(), a.manCommand(), versionCommand()),
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("host")
	root.SetCompletionCommandGroupID("host")
	root.AddCommand(later("base", fmt.Sprintf("`%s create NAME`, what you install and `%s checkpoint create NAME` make one by hand", program.Name, program.Name)))
	return root
}

var ownerRule = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}(/[a-z0-9-]{1,31})*$`)

// load reads the configuration and settles who the owner is.
func (a *cli) load(cmd *cobra.Command) error {
	if err := a.server.settle(cmd); err != nil {
		return err
	}
	path, named := a.configFlag, a.configFlag != ""
	if !named {
		// Where there is no home there is no file; a client may start us so.
		path, _ = config.Path()
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
		if a.owner = localUser(); a.owner == "" {
			return errors.New("who the local user is can't be found out: give --owner")
		}
	}
	if a.server.url != "" && !a.direct {
		return nil // the token says who it is
	}
	if !ownerRule.MatchString(a.owner) {
		return usageError{fmt.Errorf("the owner %q can't be used: give --owner (or PIXELS_OWNER) 1 to 64 letters, digits, dots, dashes, underscores or @", a.owner)}
	}
	return nil
}

// localUser names who runs this program; it is empty where that can't be found out.
func localUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// policyPath is where policy.toml is: beside config.toml. It is empty where there is no home.
func (a *cli) policyPath() string {
	if a.configPath == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(a.configPath), "policy.toml")
}

// given returns the flags about the configuration that a command was called with, to be passed on to another one.
func (a *cli) given(cmd *cobra.Command) (args []string) {
	if cmd.Flags().Changed("config") {
		args = append(args, "--config", a.configPath)
	}
	for _, s := range config.Settings() {
		if cmd.Flags().Changed(s.Flag) {
			args = append(args, "--"+s.Flag, *a.flags[s.Key])
		}
	}
	return args
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

// knownCommand is for commands that have others below them: what is no command there is a mistake.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			known = append(append(known, c.Name()), c.Aliases...)
		}
	}
	return usageError{fmt.Errorf("`%s` has no command %q%s; see `%s --help`", cmd.CommandPath(), args[0], nearest.Hint(args[0], known), cmd.CommandPath())}
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// later answers for a command of the first release that is not there yet.
func later(name, instead string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return usageError{fmt.Errorf("`%s %s` is not there yet: %s", program.Name, name, instead)}
		},
	}
}
