// Package metrics serves a broker's counters to Prometheus. Nothing is counted here: each
// scrape asks the broker for what it counts anyway (docs/metrics.md).
package metrics
