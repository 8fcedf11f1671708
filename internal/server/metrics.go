package server

import (
	"fmt"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"pixels/policy"
)

// meters count what is done, in the terms of Prometheus.
type meters struct{ set *metrics.Set }

func newMeters(h *HTTP) *meters {
	m := &meters{metrics.NewSet()}
	m.set.NewGauge("pixels_mcp_sessions", func() float64 { return float64(h.sessions.count()) })
	m.set.NewGauge("pixels_mcp_tokens_in_use", func() float64 { return float64(h.holders.count()) })
	for _, v := range policy.Verbs { // so that what was not called yet is there, too
		m.set.GetOrCreatePrometheusHistogram(fmt.Sprintf("pixels_call_duration_seconds{tool=%q}", v))
	}
	return m
}

// called notes a call. Tools have no names but their own, so that a client can't make more of these than there are.
func (m *meters) called(tool string, failed bool, took time.Duration) {
	result := "done"
	if failed {
		result = "failed"
	}
	m.set.GetOrCreateCounter(fmt.Sprintf("pixels_calls_total{tool=%q,result=%q}", tool, result)).Inc()
	m.set.GetOrCreatePrometheusHistogram(fmt.Sprintf("pixels_call_duration_seconds{tool=%q}", tool)).Update(took.Seconds())
}

func (m *meters) refused(status int) {
	m.set.GetOrCreateCounter(fmt.Sprintf("pixels_http_refused_total{status=\"%d\"}", status)).Inc()
}

func (h *HTTP) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		http.Error(w, "GET it", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.meters.set.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
}
