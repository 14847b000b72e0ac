package main

import (
	"bufio"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

const (
	logBufferBytes   = 64 << 10
	logFlushInterval = time.Second
)

// accessLog writes one JSON line a request through a buffer, which is flushed when full and each second.
type accessLog struct {
	mu   sync.Mutex
	out  *bufio.Writer
	line []byte // reused under mu
}

func openAccessLog(path string) (*accessLog, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	l := &accessLog{out: bufio.NewWriterSize(file, logBufferBytes)}
	go l.flushForever()
	return l, nil
}

func (l *accessLog) flushForever() {
	for range time.Tick(logFlushInterval) {
		l.mu.Lock()
		l.out.Flush()
		l.mu.Unlock()
	}
}

func (l *accessLog) middleware(c *gin.Context) {
	start := time.Now()
	c.Next()
	took := time.Since(start)

	l.mu.Lock()
	defer l.mu.Unlock()
	b := append(l.line[:0], `{"time":"`...)
	b = start.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = appendString(b, `","client":`, c.Request.RemoteAddr)
	b = appendString(b, `,"method":`, c.Request.Method)
	b = appendString(b, `,"host":`, c.Request.Host)
	b = appendString(b, `,"path":`, c.Request.URL.Path)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(c.Writer.Status()), 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, int64(c.Writer.Size()), 10)
	b = append(b, `,"duration_ms":`...)
	b = strconv.AppendFloat(b, float64(took.Microseconds())/1000, 'f', 3, 64)
	b = appendString(b, `,"release":`, c.GetString(keyRelease))
	b = appendString(b, `,"reason":`, c.GetString(keyReason))
	b = appendString(b, `,"user":`, c.GetHeader(userHeader))
	b = append(b, "}\n"...)
	l.line = b
	l.out.Write(b)
}

func appendString(b []byte, key, value string) []byte {
	return strconv.AppendQuote(append(b, key...), value)
}
