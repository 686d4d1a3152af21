// Command asker sends one request again and again over kept TLS connections and prints how many
// were answered in a second. Beside an engine that lives behind HTTP it is the limit: what the
// service itself does, asked by somebody who computes next to nothing.
//
//	ASK_TOKEN=... asker -url URL -ca FILE -c 32 -seconds 2 < body
//
// An empty body is a GET, any other a POST.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	url := flag.String("url", "", "where")
	ca := flag.String("ca", "", "PEM of the CA to trust")
	callers := flag.Int("c", 1, "callers at once")
	seconds := flag.Float64("seconds", 2, "how long")
	flag.Parse()
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		MaxIdleConnsPerHost: *callers,
	}}
	method := http.MethodPost
	if len(body) == 0 {
		method = http.MethodGet
	}
	ask := func() {
		request, err := http.NewRequest(method, *url, bytes.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("X-Vault-Token", os.Getenv("ASK_TOKEN"))
		answer, err := client.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			log.Fatal(err)
		}
		if answer.StatusCode != http.StatusOK {
			log.Fatal(answer.Status)
		}
	}
	ask() // the first one pays for what is kept
	var count atomic.Int64
	var all sync.WaitGroup
	begun := time.Now()
	until := begun.Add(time.Duration(*seconds * float64(time.Second)))
	for range *callers {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(until) {
				ask()
				count.Add(1)
			}
		}()
	}
	all.Wait()
	fmt.Printf("%.1f\n", float64(count.Load())/time.Since(begun).Seconds())
}
