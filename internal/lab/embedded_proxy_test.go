package lab

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"

	"k8s.io/client-go/rest"

	"ambientlab/internal/cluster/embedded"
)

// readOnly runs a target against an API server that refuses every write but dry runs, and wants none tried.
func (b *bench) readOnly(name string, target func(context.Context) error) {
	b.t.Helper()
	config, err := b.provider().RESTConfig(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		b.t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		b.t.Fatal(err)
	}
	var mu sync.Mutex
	var refused []string
	asked := 0
	pass := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(server) },
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		write := r.Method != http.MethodGet && r.URL.Query().Get("dryRun") != "All"
		if write {
			refused = append(refused, r.Method+" "+r.URL.Path)
		}
		mu.Unlock()
		if write {
			http.Error(w, "this server takes no writes", http.StatusForbidden)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	defer proxy.Close()

	plane := b.plane()
	b.UseProvider(through{plane, &rest.Config{Host: proxy.URL, QPS: -1}})
	defer b.UseProvider(plane)
	b.do(name, target)
	if len(refused) > 0 || asked == 0 {
		b.t.Errorf("%s: of %d requests these were writes: %v", name, asked, refused)
	}
}

// through is a provider whose API server is reached at another address.
type through struct {
	*embedded.Embedded
	config *rest.Config
}

func (p through) RESTConfig(context.Context) (*rest.Config, error) { return p.config, nil }
