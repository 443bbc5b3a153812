//! What the shop's services are written in: a table of runtimes and their instrumentation libraries.

/// What a service is written in, as its resource and its scopes tell.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) language: &'static str,
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) sdk_version: &'static str,
    pub(super) agent: &'static str,
    pub(super) exception: &'static str,
    pub(super) frame: &'static str,
    pub(super) http: Library,
    pub(super) rpc: Library,
    pub(super) data: Library,
    pub(super) queue: Library,
}

/// An instrumentation scope.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

const fn lib(name: &'static str, version: &'static str) -> Library {
    Library { name, version }
}

pub(super) static JAVA: Runtime = Runtime {
    language: "java",
    name: "OpenJDK Runtime Environment",
    version: "21.0.6+7-LTS",
    sdk_version: "1.49.0",
    agent: "okhttp/4.12.0",
    exception: "java.util.concurrent.TimeoutException",
    frame: "\tat com.example.shop.core.CallGuard.await(CallGuard.java:118)\n\
            \tat com.example.shop.core.Pipeline.lambda$run$3(Pipeline.java:204)\n\
            \tat java.base/java.util.concurrent.FutureTask.run(FutureTask.java:317)\n\
            \tat java.base/java.lang.Thread.run(Thread.java:1583)",
    http: lib("io.opentelemetry.tomcat-10.0", "2.15.0-alpha"),
    rpc: lib("io.opentelemetry.grpc-1.6", "2.15.0-alpha"),
    data: lib("io.opentelemetry.jdbc", "2.15.0-alpha"),
    queue: lib("io.opentelemetry.kafka-clients-2.6", "2.15.0-alpha"),
};
pub(super) static GO: Runtime = Runtime {
    language: "go",
    name: "go",
    version: "go1.24.2",
    sdk_version: "1.35.0",
    agent: "grpc-go/1.71.1",
    exception: "*net.OpError",
    frame: "goroutine 4127 [running]:\n\
            example.com/shop/internal/call.(*Guard).Do(0xc0003a2d80, {0x1a4c2f0, 0xc00049e1b0})\n\
            \t/src/internal/call/guard.go:87 +0x1f4\n\
            example.com/shop/internal/server.(*Server).handle(0xc000128000)\n\
            \t/src/internal/server/server.go:241 +0x3c8",
    http: lib("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.60.0"),
    rpc: lib("go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", "0.60.0"),
    data: lib("github.com/XSAM/otelsql", "0.38.0"),
    queue: lib("github.com/dnwe/otelsarama", "0.5.0"),
};
pub(super) static NODE: Runtime = Runtime {
    language: "nodejs",
    name: "nodejs",
    version: "22.14.0",
    sdk_version: "2.0.0",
    agent: "undici/7.5.0",
    exception: "AbortError",
    frame: "    at Guard.call (/app/dist/core/guard.js:61:19)\n\
            \x20   at process.processTicksAndRejections (node:internal/process/task_queues:105:5)\n\
            \x20   at async Router.dispatch (/app/dist/http/router.js:148:22)",
    http: lib("@opentelemetry/instrumentation-http", "0.200.0"),
    rpc: lib("@opentelemetry/instrumentation-grpc", "0.200.0"),
    data: lib("@opentelemetry/instrumentation-pg", "0.52.0"),
    queue: lib("@opentelemetry/instrumentation-kafkajs", "0.10.0"),
};
pub(super) static PYTHON: Runtime = Runtime {
    language: "python",
    name: "cpython",
    version: "3.13.2",
    sdk_version: "1.32.0",
    agent: "python-httpx/0.28.1",
    exception: "asyncio.exceptions.TimeoutError",
    frame: "Traceback (most recent call last):\n\
            \x20 File \"/app/shop/core/guard.py\", line 73, in call\n\
            \x20   return await asyncio.wait_for(work, timeout=self.timeout)\n\
            \x20 File \"/usr/local/lib/python3.13/asyncio/tasks.py\", line 507, in wait_for\n\
            \x20   return await fut",
    http: lib("opentelemetry.instrumentation.fastapi", "0.53b0"),
    rpc: lib("opentelemetry.instrumentation.grpc", "0.53b0"),
    data: lib("opentelemetry.instrumentation.redis", "0.53b0"),
    queue: lib("opentelemetry.instrumentation.aiokafka", "0.53b0"),
};
