package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	idleTimeout = 5 * time.Second
	settle      = 2 * time.Second // between the last answer and the look at the memory
)

// held is what is printed of idle connections.
type held struct {
	Connections int            `json:"connections"`
	RSSBefore   int            `json:"rss_before"` // bytes, of all processes of -pids
	RSSAfter    int            `json:"rss_after"`
	Errors      int            `json:"errors"`
	ErrorKinds  map[string]int `json:"error_kinds"`
}

// holdIdle opens the connections one after the other, asks once on each, leaves all open and sees whether they still are.
func (l *load) holdIdle() (h held, err error) {
	if h.RSSBefore, err = l.residentBytes(); err != nil {
		return h, err
	}
	buffer := make([]byte, readBufferBytes)
	conns := make([]net.Conn, 0, l.options.idle)
	for len(conns) < l.options.idle {
		conn, err := net.DialTimeout("tcp", l.addr.String(), idleTimeout)
		if err != nil {
			return h, fmt.Errorf("connection %d: %w", len(conns)+1, err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		if err := l.askOnce(conn, buffer); err != nil {
			return h, fmt.Errorf("connection %d: %w", len(conns), err)
		}
	}
	time.Sleep(settle)
	if h.RSSAfter, err = l.residentBytes(); err != nil {
		return h, err
	}
	for _, conn := range conns {
		if !open(conn) {
			l.fail("an idle connection was closed")
		}
	}
	h.Connections, h.Errors, h.ErrorKinds = len(conns), l.errors, l.errorKinds
	return h, nil
}

func (l *load) askOnce(conn net.Conn, buffer []byte) error {
	user := l.takeUser()
	conn.SetDeadline(time.Now().Add(idleTimeout))
	if _, err := conn.Write(l.requests[user]); err != nil {
		return err
	}
	a, err := readAnswer(conn, buffer)
	if err != nil {
		return err
	}
	l.check(user, a)
	if a.last {
		return errors.New("the proxy closes after the answer")
	}
	return nil
}

// open looks without waiting: nothing to read is what an open connection has.
func open(conn net.Conn) bool {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	var seen error
	err = raw.Control(func(fd uintptr) {
		_, _, seen = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && errors.Is(seen, syscall.EAGAIN)
}

// residentBytes adds up VmRSS of the proxy's processes.
func (l *load) residentBytes() (sum int, err error) {
	for _, pid := range l.pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		kib := 0
		for line := range strings.Lines(string(status)) {
			if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
				break
			}
		}
		if kib == 0 {
			return 0, fmt.Errorf("process %d says nothing of its memory", pid)
		}
		sum += kib << 10
	}
	return sum, nil
}
