package view

import (
	"fmt"
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

// Rough says a length of time by its largest unit alone: 45s, 3m, 5h, 2d.
func Rough(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// Past says how long ago something was, for people: 3m ago.
func Past(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return Rough(time.Since(t)) + " ago"
}

// Left says how long it is until a moment, for people: in 3m. It is rounded to the nearest: of a day that has just begun it says 24h.
func Left(t time.Time) string {
	left := time.Until(t)
	switch {
	case t.IsZero():
		return ""
	case left <= 0:
		return "over"
	case left < time.Minute:
		left = left.Round(time.Second)
	case left < time.Hour:
		left = left.Round(time.Minute)
	case left < 48*time.Hour:
		left = left.Round(time.Hour)
	default:
		left = left.Round(24 * time.Hour)
	}
	return "in " + Rough(left)
}
