package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// usage is what had been used at one moment. at is 0 until then.
type usage struct {
	at     int64
	cpu    time.Duration // of the proxy
	beside time.Duration // of the load and the origin
	busy   []float64     // seconds of each core
}

var epoch = time.Now()

// now is monotonic, in nanoseconds, and never 0.
func now() int64 { return time.Since(epoch).Nanoseconds() + 1 }

func (l *load) usage(t int64) usage {
	u := usage{at: t, beside: cpuTime(0), busy: coreBusy()}
	for _, pid := range l.pids {
		u.cpu += cpuTime(pid)
	}
	for _, pid := range l.originPIDs {
		u.beside += cpuTime(pid)
	}
	return u
}

// cpuTime is a process's user and system time, all its threads included, as in /proc/PID/stat but in nanoseconds.
func cpuTime(pid int) time.Duration {
	const cpuClock = 2 // CPUCLOCK_SCHED of a process; see clock_getcpuclockid(3)
	clock := int32(^pid)<<3 | cpuClock
	if pid == 0 {
		clock = cpuClock // CLOCK_PROCESS_CPUTIME_ID
	}
	var spec syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&spec)), 0)
	return time.Duration(spec.Nano())
}

// coreBusy is how long each core was not idle, in seconds.
func coreBusy() (busy []float64) {
	const ticksASecond = 100
	stat, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(stat)) {
		words := strings.Fields(line)
		if !strings.HasPrefix(words[0], "cpu") || words[0] == "cpu" {
			continue
		}
		ticks := 0.0
		for i, word := range words[1:9] { // user nice system idle iowait irq softirq steal
			if n, err := strconv.ParseFloat(word, 64); err == nil && i != 3 && i != 4 {
				ticks += n
			}
		}
		busy = append(busy, ticks/ticksASecond)
	}
	return busy
}
