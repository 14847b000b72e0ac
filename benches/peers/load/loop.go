package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	readBufferBytes = 16 << 10
	epollEvents     = 256
	pollMillis      = 10 // so that the window ends on time when nothing happens
	restBytes       = 1 << 20
	errorsMax       = 1000 // more are not worth measuring
	connectTimeout  = 5 * time.Second
)

// conn has at most one request in flight.
type conn struct {
	fd     int
	user   int   // index of the user whose request is in flight; idle: none
	due    int64 // when that request was due
	have   int   // bytes of the answer in buffer
	left   int   // bytes still to come of a body that does not fit there
	last   bool  // the connection ends with the answer
	buffer [readBufferBytes]byte
}

const none = -1

type load struct {
	options
	epoll    int
	requests [][]byte
	releases []byte // of each user: the first letter, or 0 as long as it is unknown
	conns    []*conn
	idle     []*conn
	nextUser int

	begin, end    int64 // of the measured window
	before, after usage
	completed     int // answers within the window
	latencies     []int64
	unanswered    int // requests due within the window (open loop)
	reconnects    int
	errors        int
	errorKinds    map[string]int
	cipher        string // of TLS, as negotiated first
}

func newLoad(o options) *load {
	l := &load{options: o, errorKinds: map[string]int{}, releases: make([]byte, len(o.users))}
	for i, u := range o.users {
		l.requests = append(l.requests, o.render(u.id, i%max(o.paths, 1)))
	}
	l.latencies = make([]int64, 0, int(o.duration.Seconds()*float64(o.rate))+1)
	return l
}

func (o options) render(user string, n int) []byte {
	method, more := "GET", ""
	if o.post > 0 {
		method, more = "POST", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", o.post)
	}
	if o.fresh {
		more += "Connection: close\r\n"
	}
	head := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: shop.example.com\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: application/json\r\n"+
		"Origin: https://shop.example.com\r\nX-User-Id: %s\r\n%s\r\n",
		method, strings.ReplaceAll(o.path, "{n}", strconv.Itoa(n)), user, more)
	return append(head, bytes.Repeat([]byte("x"), o.post)...)
}

func (l *load) run() (err error) {
	if l.epoll, err = syscall.EpollCreate1(0); err != nil {
		return err
	}
	for i := range l.options.conns {
		c := &conn{user: none}
		if err := l.connect(c, i); err != nil {
			return err
		}
		l.conns = append(l.conns, c)
		l.idle = append(l.idle, c)
	}
	if l.flood != nil {
		if err := l.flood.start(l); err != nil {
			return err
		}
	}
	start := now()
	l.begin = start + l.warmup.Nanoseconds()
	l.end = l.begin + l.duration.Nanoseconds()
	if l.rate > 0 {
		return l.openLoop(start)
	}
	return l.closedLoop()
}

func (l *load) closedLoop() error {
	for l.after.at == 0 {
		for len(l.idle) > 0 {
			l.send(now())
		}
		if err := l.poll(); err != nil {
			return err
		}
	}
	return nil
}

// openLoop never sleeps: waking up from an idle core takes longer, on a virtual machine above all, than some proxies take
// for a request. It gives way to the origin by its lower priority.
func (l *load) openLoop(start int64) error {
	if err := lowerPriority(); err != nil {
		return err
	}
	interval := int64(time.Second) / int64(l.rate)
	l.unanswered = int((l.end - l.begin) / interval)
	due := start // of the next request to send; those already due wait here for a connection
	for l.after.at == 0 || l.unanswered > 0 {
		for t := now(); due <= t && len(l.idle) > 0; due += interval {
			l.send(due)
		}
		if l.flood != nil && l.after.at == 0 {
			l.flood.ask(now())
		}
		if err := l.poll(); err != nil {
			return err
		}
		if now() > l.end+l.drain.Nanoseconds() {
			l.errors += l.unanswered
			l.errorKinds["not answered in time"] += l.unanswered
			return nil
		}
	}
	return nil
}

func lowerPriority() error {
	const steps = 10
	inverted, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0) // Linux: 20 - nice
	if err != nil {
		return err
	}
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, min(20-inverted+steps, 19))
}

func (l *load) watch(fd, index int, events uint32) error {
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(index)})
}

func (l *load) connect(c *conn, index int) error { return l.connectTo(l.addr, c, index) }

func (l *load) connectTo(addr netip.AddrPort, c *conn, index int) error {
	deadline := now() + connectTimeout.Nanoseconds()
	for {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
		if err == nil {
			c.fd = fd
			break
		}
		syscall.Close(fd)
		if now() > deadline {
			return fmt.Errorf("connect %s: %w", addr, err)
		}
		time.Sleep(pollMillis * time.Millisecond)
	}
	if l.post > 0 { // a request goes out in one write
		if err := syscall.SetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4*l.post); err != nil {
			return err
		}
	}
	if err := syscall.SetNonblock(c.fd, true); err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	return l.watch(c.fd, index, syscall.EPOLLIN)
}

// send takes an idle connection and the next user.
func (l *load) send(due int64) {
	c := l.idle[len(l.idle)-1]
	l.idle = l.idle[:len(l.idle)-1]
	c.user, c.due, c.have, c.left = l.takeUser(), due, 0, 0
	// A failure shows itself as the end of the connection.
	request := l.requests[c.user]
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&request[0])), uintptr(len(request)))
	if errno == 0 && int(n) < len(request) {
		l.fail("a request was written in part")
	}
}

func (l *load) takeUser() int {
	user := l.nextUser
	l.nextUser++
	if l.nextUser == len(l.users) {
		l.nextUser = 0
	}
	return user
}

var events [epollEvents]syscall.EpollEvent

// poll waits for answers and takes them in; before it does, it notes the usage when the window begins or ends.
func (l *load) poll() error {
	wait := pollMillis
	if l.rate > 0 {
		wait = 0
		syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
	}
	n, err := syscall.EpollWait(l.epoll, events[:], wait)
	if err != nil && err != syscall.EINTR {
		return err
	}
	t := now()
	if l.before.at == 0 && t >= l.begin {
		l.before = l.usage(t)
	}
	if l.after.at == 0 && t >= l.end {
		l.after = l.usage(t)
	}
	for _, event := range events[:max(n, 0)] {
		if err := l.receive(int(event.Fd)); err != nil {
			return err
		}
	}
	if l.errors > errorsMax {
		return fmt.Errorf("more than %d errors: %v", errorsMax, l.errorKinds)
	}
	return nil
}

func (l *load) receive(index int) error {
	if index >= len(l.conns) {
		return l.flood.receive(l, index-len(l.conns))
	}
	c := l.conns[index]
	if c.left > 0 {
		return l.receiveRest(c, index)
	}
	if c.have == len(c.buffer) {
		return l.broken(c, index, "a head is too long")
	}
	free := c.buffer[c.have:]
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&free[0])), uintptr(len(free)))
	if why, ok := unread(n, errno); !ok {
		return l.brokenUnlessEmpty(c, index, why)
	}
	if c.user == none {
		return l.broken(c, index, "bytes without a request")
	}
	c.have += int(n)
	answer, size, err := parseAnswer(c.buffer[:c.have])
	switch {
	case err != nil:
		return l.broken(c, index, err.Error())
	case size == 0 || !answer.readable():
		return nil
	case c.have > size:
		return l.broken(c, index, "bytes after the answer")
	}
	l.check(c.user, answer)
	c.last, c.left = answer.last || l.fresh, size-c.have
	if c.left > 0 {
		return nil
	}
	return l.answered(c, index)
}

// receiveRest counts the rest of a long body and has the kernel drop it uncopied (MSG_TRUNC, see tcp(7)): 1 MiB an answer
// would be most of what the load does.
func (l *load) receiveRest(c *conn, index int) error {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(c.fd), 0, restBytes, syscall.MSG_TRUNC, 0, 0)
	if why, ok := unread(n, errno); !ok {
		return l.brokenUnlessEmpty(c, index, why)
	}
	if int(n) > c.left {
		return l.broken(c, index, "bytes after the answer")
	}
	if c.left -= int(n); c.left > 0 {
		return nil
	}
	return l.answered(c, index)
}

// unread says why a read brought nothing; no reason: nothing was there.
func unread(n uintptr, errno syscall.Errno) (why string, ok bool) {
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return "", false
	case errno != 0:
		return errno.Error(), false
	case n == 0:
		return "closed before the answer", false
	}
	return "", true
}

func (l *load) brokenUnlessEmpty(c *conn, index int, why string) error {
	if why == "" {
		return nil
	}
	return l.broken(c, index, why)
}

func (l *load) answered(c *conn, index int) error {
	l.finish(c)
	if c.last {
		return l.broken(c, index, "")
	}
	l.idle = append(l.idle, c)
	return nil
}

// finish counts the answered request.
func (l *load) finish(c *conn) {
	t := now()
	if t >= l.begin && t < l.end {
		l.completed++
	}
	if l.rate > 0 && c.due >= l.begin && c.due < l.end {
		l.unanswered--
		l.latencies = append(l.latencies, t-c.due)
	}
	c.user = none
}

// broken replaces a connection. It is an error when a request was in flight.
func (l *load) broken(c *conn, index int, why string) error {
	if c.user != none {
		l.fail(why)
		l.finish(c)
		l.idle = append(l.idle, c)
	} else if !slices.Contains(l.idle, c) {
		l.idle = append(l.idle, c)
	}
	l.reconnects++
	syscall.Close(c.fd)
	return l.connect(c, index)
}

func (l *load) fail(kind string) {
	l.errors++
	l.errorKinds[kind]++
}
