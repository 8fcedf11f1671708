package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pixels/internal/config"
	"pixels/internal/place"
	"pixels/internal/program"
)

// shownSetting is a setting as `config --json` shows it.
type shownSetting struct {
	Key      string `json:"key"`
	Value    string `json:"value"`
	From     string `json:"from"` // default, file, the name of a variable or a flag, or a key of the first release
	Variable string `json:"variable"`
	Flag     string `json:"flag"`
}

func (a *cli) configCommand() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show each setting with its value and where it came from; edit them",
		Args:  knownCommand,
		RunE: func(*cobra.Command, []string) error {
			var all []shownSetting
			var rows [][]string
			for _, set := range config.Settings() {
				from := a.config.From(set.Key)
				if from == "" {
					from = "default"
				}
				one := shownSetting{set.Key, a.config.Value(set.Key), from, set.Env, "--" + set.Flag}
				all = append(all, one)
				rows = append(rows, []string{one.Key, orNone(one.Value), one.From, one.Variable, one.Flag})
			}
			if s.json {
				return a.printJSON(all)
			}
			fmt.Fprintf(a.out, "file: %s\n\n", a.configPath)
			if err := a.printTable([]string{"KEY", "VALUE", "FROM", "VARIABLE", "FLAG"}, rows); err != nil {
				return err
			}
			for _, note := range a.config.Notes {
				fmt.Fprintln(a.out, note)
			}
			return nil
		},
	}
	s.flags(cmd, "")
	cmd.AddCommand(a.configEdit(), &cobra.Command{
		Use:   "path",
		Short: "Print where the configuration is read from",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, a.configPath)
			return err
		},
		PersistentPreRunE: a.findConfig,
	})
	return cmd
}

// findConfig settles where the configuration is, and reads nothing: one that can't be read has a place all the same, and may be what is
// to be mended.
func (a *cli) findConfig(*cobra.Command, []string) (err error) {
	if a.configPath = a.configFlag; a.configPath == "" {
		a.configPath, err = config.Path()
	}
	return err
}

// firstConfig is what a new file begins with.
const firstConfig = "# Settings of Pixels; `pixels config` shows all that there are.\n\n[defaults]\n# cpu = 2\n# memory = \"2GiB\"\n# egress = \"agent\"\n"

func (a *cli) configEdit() *cobra.Command {
	return &cobra.Command{
		Use:   "edit",
		Short: "Edit the configuration; a bad one is refused, and what was there stays",
		Long: "edit opens a copy of the configuration in $VISUAL or $EDITOR, and takes it over when it is good. Of a bad one it says\n" +
			"line and key, and opens it again; what was there stays in force until then.",
		Args:              noArguments,
		PersistentPreRunE: a.findConfig,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.edit(cmd) },
	}
}

func (a *cli) edit(cmd *cobra.Command) error {
	before, err := os.ReadFile(a.configPath)
	if errors.Is(err, fs.ErrNotExist) {
		before, err = []byte(firstConfig), os.MkdirAll(filepath.Dir(a.configPath), 0o700)
	}
	if err != nil {
		return err
	}
	draft := a.configPath + ".edit"
	if err := os.WriteFile(draft, before, 0o600); err != nil {
		return err
	}
	for {
		if err := a.editor(cmd, draft); err != nil {
			return errors.Join(err, os.Remove(draft))
		}
		after, err := os.ReadFile(draft)
		if err != nil {
			return err
		}
		if string(after) == string(before) {
			fmt.Fprintln(a.err, "nothing was changed")
			return os.Remove(draft)
		}
		_, bad := config.Load(draft, true, nil, nil)
		if bad == nil {
			if err := os.Rename(draft, a.configPath); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is in force for what starts from now on\n", a.configPath)
			return nil
		}
		bad = errors.New(strings.ReplaceAll(bad.Error(), draft, a.configPath))
		if _, ok := terminal(a.in); !ok {
			return errors.Join(fmt.Errorf("%w; what was there stays in force", bad), os.Remove(draft))
		}
		fmt.Fprintf(a.err, "%s: %v\n", program.Name, bad)
		again, err := a.confirm("edit it again")
		if err != nil || !again {
			return errors.Join(err, errors.New("what was there stays in force"), os.Remove(draft))
		}
	}
}

// editor has the user edit a file.
func (a *cli) editor(cmd *cobra.Command, path string) error {
	line := os.Getenv("VISUAL")
	if line == "" {
		line = os.Getenv("EDITOR")
	}
	if line == "" {
		line = "vi"
	}
	// As git and others have it, the variable is a line for the shell.
	c := exec.CommandContext(cmd.Context(), "/bin/sh", "-c", line+` "$0"`, path)
	c.Stdin, c.Stdout, c.Stderr = a.in, a.raw, a.rawErr
	if err := c.Run(); err != nil {
		return fmt.Errorf("edit the configuration with %s (VISUAL or EDITOR name another one): %w", line, err)
	}
	return nil
}

// note says on stderr what the configuration has that means nothing here, once for each configuration.
func (a *cli) note() {
	for _, note := range a.config.Notes {
		a.warnOnce(errors.New(note))
	}
}

// warnOnce says something on stderr that stays as it is until somebody changes the configuration.
func (a *cli) warnOnce(err error) {
	if a.firstTime(err.Error()) {
		a.warn(err)
	}
}

// firstTime tells whether something is said for the first time, and notes it beside the records. Where that can't be noted it is said
// each time.
func (a *cli) firstTime(text string) bool {
	path, err := place.Database()
	if err != nil {
		return true
	}
	sum := sha256.Sum256([]byte(text))
	dir := filepath.Join(filepath.Dir(path), "said")
	if os.MkdirAll(dir, 0o700) != nil {
		return true
	}
	f, err := os.OpenFile(filepath.Join(dir, hex.EncodeToString(sum[:8])), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return !errors.Is(err, fs.ErrExist)
	}
	_ = f.Close()
	return true
}
