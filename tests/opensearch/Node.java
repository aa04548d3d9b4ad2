// One OpenSearch node for a test: `java -cp 'LIB/*' Node.java FOLDER HTTP_PORT TRANSPORT_PORT`.
// Says "ready" once it answers, and ends when its standard input does, so that none is left behind.

import static org.codelibs.opensearch.runner.OpenSearchRunner.newConfigs;

import org.codelibs.opensearch.runner.OpenSearchRunner;

public class Node {
    public static void main(String[] arguments) throws Exception {
        String folder = arguments[0];
        int http = Integer.parseInt(arguments[1]);
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.setMaxHttpPort(65535);
        runner.onBuild((number, settings) -> {
            settings.put("discovery.type", "single-node");
            settings.put("http.host", "127.0.0.1");
            settings.put("transport.host", "127.0.0.1");
            settings.put("transport.port", arguments[2]);
            // A test's disk may be nearly full.
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        });
        // The runner gives the first node the port after its base.
        runner.build(newConfigs().basePath(folder).numOfNode(1).baseHttpPort(http - 1).clusterName("leasehold-test"));
        System.out.println("ready");
        while (System.in.read() >= 0) {
            // Nothing is said to it but that it is over.
        }
        runner.close();
        System.exit(0);
    }
}
