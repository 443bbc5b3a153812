// Makes numbered spans at a steady rate with the SDK's defaults, and prints how many: `steady grpc|http`.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func exporter(ctx context.Context, transport string) (*otlptrace.Exporter, error) {
	if transport == "http" {
		return otlptracehttp.New(ctx)
	}
	return otlptracegrpc.New(ctx)
}

func number(variable string) int {
	value, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	ctx := context.Background()
	exporter, err := exporter(ctx, os.Args[1])
	if err != nil {
		panic(err)
	}
	rate := number("STEADY_RATE")
	made := number("STEADY_SECONDS") * rate
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	tracer := provider.Tracer("restarts")
	begin := time.Now()
	for n := 0; n < made; n++ {
		time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		_, span := tracer.Start(ctx, "steady", trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.Int("n", n)))
		span.End()
	}
	if err := provider.Shutdown(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	fmt.Println(made)
}
