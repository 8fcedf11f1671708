package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"pixels/internal/plain"
	"pixels/internal/units"
)

// progressAfter is how long work may take before a line says that it goes on.
const progressAfter = time.Second

// progress says on stderr that work goes on.
type progress struct {
	what  string
	begun time.Time
	to    io.Writer // the terminal whose last line shows it; nil where there is none

	mu    sync.Mutex
	drawn bool
	ended bool
	timer *time.Timer
}

// progress begins to say that work goes on: in a line that changes where stderr is a terminal, and nowhere else. With --verbose it
// says so in lines of its own, also elsewhere.
func (a *cli) progress(what string) *progress {
	p := &progress{what: plain.Line(what, 60), begun: time.Now()}
	if a.verbose {
		fmt.Fprintf(a.err, "%s ...\n", p.what)
	} else if f, ok := terminal(a.rawErr); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.to = f
		p.timer = time.AfterFunc(progressAfter, p.draw)
	}
	return p
}

func (p *progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.drawn = true
	fmt.Fprintf(p.to, "\r\x1b[K%s ... %s", p.what, time.Since(p.begun).Round(time.Second))
	p.timer.Reset(progressAfter)
}

// say has lines printed where the progress stands.
func (p *progress) say(print func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.to, "\r\x1b[K")
		p.drawn = false
	}
	print()
}

// end takes the line away.
func (p *progress) end() {
	p.say(func() { p.ended = true })
}

// took is how long it has gone on, for people.
func (p *progress) took() time.Duration { return units.Rounded(time.Since(p.begun)) }
