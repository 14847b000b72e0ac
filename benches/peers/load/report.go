package main

import (
	"fmt"
	"hash/fnv"
	"slices"
)

// report is what is printed. CPU is that of the processes of -pids, user and system, over the measured window.
type report struct {
	Seconds          float64        `json:"seconds"`
	Requests         int            `json:"requests"`
	RequestsASecond  float64        `json:"requests_a_second"`
	CPUSeconds       float64        `json:"cpu_seconds"`
	CPUMicros        float64        `json:"cpu_us_a_request"`
	LatencyMicros    *percentiles   `json:"latency_us,omitempty"`
	Reconnects       int            `json:"reconnects"`
	Errors           int            `json:"errors"`
	ErrorKinds       map[string]int `json:"error_kinds"`
	CanaryShare      float64        `json:"canary_share_of_unlisted"`
	Assignment       string         `json:"assignment"`         // hash of which unlisted user of the cycle got which release
	BesideCPUSeconds float64        `json:"beside_cpu_seconds"` // load and origin
	CoreBusy         []float64      `json:"core_busy"`          // share of each core that was not idle
	Cipher           string         `json:"cipher,omitempty"`   // of TLS
	Flood            *flooded       `json:"flood,omitempty"`
}

type percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l *load) report() report {
	seconds := float64(l.after.at-l.before.at) / 1e9
	cpu := (l.after.cpu - l.before.cpu).Seconds()
	r := report{
		Seconds:          seconds,
		Requests:         l.completed,
		RequestsASecond:  float64(l.completed) / seconds,
		CPUSeconds:       cpu,
		CPUMicros:        1e6 * cpu / float64(max(l.completed, 1)),
		Reconnects:       l.reconnects,
		Errors:           l.errors,
		ErrorKinds:       l.errorKinds,
		Cipher:           l.cipher,
		BesideCPUSeconds: (l.after.beside - l.before.beside).Seconds(),
	}
	for i := range l.after.busy {
		r.CoreBusy = append(r.CoreBusy, (l.after.busy[i]-l.before.busy[i])/seconds)
	}
	if l.flood != nil {
		r.Flood = &l.flood.flooded
	}
	r.CanaryShare, r.Assignment = l.assignment()
	if len(l.latencies) > 0 {
		r.LatencyMicros = newPercentiles(l.latencies)
	}
	return r
}

func (l *load) assignment() (canaryShare float64, hash string) {
	canary, known := 0, 0
	sum := fnv.New64a()
	for i, u := range l.users {
		if u.listed || l.releases[i] == 0 {
			continue
		}
		known++
		if l.releases[i] == 'c' {
			canary++
		}
		sum.Write(l.releases[i : i+1])
	}
	return float64(canary) / float64(max(known, 1)), fmt.Sprintf("%d:%016x", known, sum.Sum64())
}

// newPercentiles takes the nearest rank of the sorted latencies, in microseconds.
func newPercentiles(latencies []int64) *percentiles {
	slices.Sort(latencies)
	rank := func(p float64) float64 {
		return float64(latencies[min(int(p*float64(len(latencies))), len(latencies)-1)]) / 1e3
	}
	return &percentiles{P50: rank(0.5), P90: rank(0.9), P99: rank(0.99), Max: rank(1)}
}
