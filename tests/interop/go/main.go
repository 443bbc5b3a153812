// Sends 49 fast requests and a slow one with the OpenTelemetry SDK, and prints the trace id of the slow one and how many
// spans it has. Everything about the server comes from the environment.
package main

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	ctx := context.Background()
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		panic(err)
	}
	res, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		panic(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
	tracer := provider.Tracer("interop")
	start := time.Now().Add(-20 * time.Second)
	for i := 1; i <= 50; i++ {
		took := time.Duration(i) * time.Millisecond
		if i == 50 {
			took = 4 * time.Second
		}
		c, server := tracer.Start(ctx, "POST /pay", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
		_, child := tracer.Start(c, "SELECT", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(start))
		child.End(trace.WithTimestamp(start.Add(time.Millisecond)))
		server.End(trace.WithTimestamp(start.Add(took)))
		if i == 50 {
			fmt.Println(server.SpanContext().TraceID(), 2)
		}
	}
	if err := provider.Shutdown(ctx); err != nil {
		panic(err)
	}
}
