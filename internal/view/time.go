package view

import (
	"time"

	"pixels/internal/units"
)

// Clock is a time for agents, which know no zone.
func Clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Ago says how long ago something was made.
func Ago(t time.Time) string {
	return units.Duration(max(time.Since(t).Truncate(time.Second), time.Second))
}

// Moment is a time for people, with its zone.
func Moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }
