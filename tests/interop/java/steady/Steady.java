import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.util.concurrent.TimeUnit;

/** Makes numbered spans at a steady rate with the SDK's defaults, and prints how many; the rest is in the environment. */
public class Steady {
    public static void main(String[] args) throws Exception {
        long rate = Long.parseLong(System.getenv("STEADY_RATE"));
        long made = Long.parseLong(System.getenv("STEADY_SECONDS")) * rate;
        OpenTelemetrySdk sdk = AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk();
        Tracer tracer = sdk.getTracer("restarts");
        long begin = System.nanoTime();
        for (long n = 0; n < made; n++) {
            TimeUnit.NANOSECONDS.sleep(begin + n * 1_000_000_000L / rate - System.nanoTime());
            tracer.spanBuilder("steady").setSpanKind(SpanKind.SERVER).setAttribute("n", n).startSpan().end();
        }
        sdk.getSdkTracerProvider().shutdown().join(90, TimeUnit.SECONDS);
        System.out.println(made);
    }
}
