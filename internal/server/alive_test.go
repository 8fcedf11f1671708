package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/rs/zerolog"

	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// A call that says nothing is told to be under way, again and again, and nothing is told once it is over.
func TestASilentCallIsToldToBeUnderWay(t *testing.T) {
	defer func(d time.Duration) { quietFor = d }(quietFor)
	if quietFor > 10*time.Second {
		t.Errorf("clients hear nothing for %v", quietFor)
	}
	quietFor = 50 * time.Millisecond
	var mu sync.Mutex
	var all []string
	tell, stop := lively(func(message string, _, _ int) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, message)
	})
	tell("begun", 0, 0)
	time.Sleep(180 * time.Millisecond)
	stop()
	mu.Lock()
	told := len(all)
	if told < 2 || all[0] != "begun" || !strings.HasPrefix(all[1], "under way for ") {
		t.Errorf("%q", all)
	}
	mu.Unlock()
	tell("late", 0, 0)
	time.Sleep(120 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if len(all) != told {
		t.Errorf("told after its end: %q", all[told:])
	}
	if tell, stop := lively(nil); tell != nil {
		t.Error("who asked for nothing is told")
	} else {
		stop()
	}
}

// What is longer than clients take is an error that says what to do.
func TestNoAnswerIsTooLong(t *testing.T) {
	s := New("test", tools.Session{Manager: manager.New(sandboxtest.NewMemory(), manager.Defaults{})}, zerolog.Nop())
	for size, long := range map[int]bool{maxAnswer - 100: false, maxAnswer + 100: true} {
		call := s.handler(tools.Tool{Name: "x", Call: func(context.Context, tools.Session, json.RawMessage) tools.Result {
			return tools.Result{Text: strings.Repeat("x", size)}
		}}, tools.Session{Manager: s.manager})
		r, err := call(t.Context(), mcp.CallToolRequest{})
		if err != nil || r.IsError != long || long && !strings.Contains(text(r), "ask for less") {
			t.Errorf("%d bytes: %t, %v", size, r.IsError, err)
		}
	}
}

// What progress counts grows with each message, and is the parts that are done where it is known how many there are.
func TestProgressGrows(t *testing.T) {
	for want, said := range map[string][][2]int{
		"1 2 3":                {{0, 0}, {0, 0}, {0, 0}},
		"0.5 0.6667 1 1.5 2 3": {{0, 3}, {0, 3}, {1, 3}, {0, 3}, {2, 3}, {3, 3}},
		"0.5 2 2.5 2.667":      {{0, 3}, {2, 3}, {1, 3}, {0, 3}},
	} {
		var s steps
		var all []string
		for _, one := range said {
			all = append(all, fmt.Sprintf("%.4g", s.next(one[0], one[1])))
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%v counts %s, want %s", said, got, want)
		}
	}
}
