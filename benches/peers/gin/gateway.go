// Package main is the gateway that Switchyard replaces, as one would write it in Go: Gin in front of
// net/http/httputil.ReverseProxy. It exists to be measured beside Switchyard.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"math/bits"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/zeebo/xxh3"
)

const (
	bucketCount   = 1_000_000
	canaryBuckets = 100_000 // 10 %
	salt          = "default"
	userHeader    = "X-User-Id"
	// What nginx and Switchyard note for a client that went away.
	statusClientClosedRequest = 499

	keyRelease = "release"
	keyReason  = "reason"
)

// gateway decides a release for each user and forwards to it.
type gateway struct {
	listed map[string]struct{} // users that always get the canary
	seed   uint64
	stable *httputil.ReverseProxy
	canary *httputil.ReverseProxy
}

func newGateway(listed map[string]struct{}, stable, canary *url.URL, pool httputil.BufferPool) *gateway {
	transport := newTransport() // one for both releases: its limits are per host but for MaxIdleConns
	return &gateway{
		listed: listed,
		seed:   xxh3.HashString(salt),
		stable: newReverseProxy(stable, transport, pool),
		canary: newReverseProxy(canary, transport, pool),
	}
}

// newTransport holds the figures that Switchyard's `connections:` takes as its defaults.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          5000,
		MaxIdleConnsPerHost:   500,
		MaxConnsPerHost:       1000,
		IdleConnTimeout:       120 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
	}
}

func newReverseProxy(target *url.URL, transport *http.Transport, pool httputil.BufferPool) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: pool,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded() // X-Forwarded-For, -Host and -Proto
			r.Out.Header.Del("Origin")
		},
		ErrorHandler: handleError,
	}
}

// handleError writes no log line for a client that went away or a connection that ended.
func handleError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, context.Canceled):
		w.WriteHeader(statusClientClosedRequest)
	case errors.Is(err, io.EOF):
		w.WriteHeader(http.StatusBadGateway)
	default:
		log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
		w.WriteHeader(http.StatusBadGateway)
	}
}

// bucket places a user in 0..1 000 000, as Switchyard does.
func (g *gateway) bucket(user string) uint64 {
	high, _ := bits.Mul64(xxh3.HashStringSeed(user, g.seed), bucketCount)
	return high
}

// decide names the user's release and why. No user: stable.
func (g *gateway) decide(user string) (release, reason string) {
	if user == "" {
		return "stable", "anonymous"
	}
	if _, ok := g.listed[user]; ok {
		return "canary", "target"
	}
	if g.bucket(user) < canaryBuckets {
		return "canary", "split"
	}
	return "stable", "stable"
}

func (g *gateway) handle(c *gin.Context) {
	release, reason := g.decide(c.GetHeader(userHeader))
	c.Set(keyRelease, release)
	c.Set(keyReason, reason)
	if release == "canary" {
		g.canary.ServeHTTP(c.Writer, c.Request)
	} else {
		g.stable.ServeHTTP(c.Writer, c.Request)
	}
}

// newHandler is the whole gateway. Without a log there is no access-log middleware.
func newHandler(g *gateway, accessLog *accessLog) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(gin.Recovery())
	if accessLog != nil {
		engine.Use(accessLog.middleware)
	}
	engine.Any("/*path", g.handle)
	return engine
}

// bufferPool lends the 32 KiB buffers that ReverseProxy otherwise allocates for each response.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[32 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }
