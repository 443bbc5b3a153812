import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** A program that knows nothing of OpenTelemetry: a server that is asked 50 times, once slowly. */
public class App {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            try {
                Thread.sleep(exchange.getRequestURI().getPath().equals("/slow") ? 700 : 2);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
            exchange.sendResponseHeaders(200, -1);
            exchange.close();
        });
        server.start();
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 50; i++) {
            String path = i == 49 ? "/slow" : "/fast";
            URI uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + path);
            client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.discarding());
        }
        server.stop(0);
    }
}
