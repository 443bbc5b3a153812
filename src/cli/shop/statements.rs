//! The statements that the shop's services send to their databases: a table.

/// A database statement.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) system: &'static str,
    pub(super) database: &'static str,
    pub(super) operation: &'static str,
    pub(super) collection: &'static str,
    pub(super) text: &'static str,
    pub(super) host: &'static str,
    pub(super) port: i64,
    pub(super) work_us: f64,
}

pub(super) static CART_READ: Query = Query {
    system: "redis",
    database: "0",
    operation: "HGETALL",
    collection: "cart",
    text: "HGETALL cart:?",
    host: "cart-redis.sales.svc.cluster.local",
    port: 6379,
    work_us: 420.0,
};
pub(super) static CART_WRITE: Query =
    Query { operation: "HSET", text: "HSET cart:? item:? ? EX ?", work_us: 510.0, ..CART_READ };
pub(super) static SESSION_READ: Query = Query {
    operation: "GET",
    collection: "session",
    text: "GET session:?",
    host: "session-redis.identity.svc.cluster.local",
    work_us: 380.0,
    ..CART_READ
};
pub(super) static USER_READ: Query = Query {
    system: "postgresql",
    database: "identity",
    operation: "SELECT",
    collection: "users",
    text: "SELECT id, display_name, locale, tier FROM users WHERE id = $1 AND deleted_at IS NULL",
    host: "identity-pg-rw.identity.svc.cluster.local",
    port: 5432,
    work_us: 1_900.0,
};
pub(super) static PRICE_READ: Query = Query {
    system: "postgresql",
    database: "pricing",
    operation: "SELECT",
    collection: "prices",
    text: "SELECT sku, currency, amount_minor FROM prices WHERE sku = ANY($1) AND valid_from <= now()",
    host: "pricing-pg-ro.sales.svc.cluster.local",
    port: 5432,
    work_us: 2_300.0,
};
pub(super) static STOCK_READ: Query = Query {
    database: "inventory",
    collection: "stock",
    text: "SELECT warehouse_id, available FROM stock WHERE sku = $1 AND available > 0 ORDER BY distance",
    host: "inventory-pg-rw.logistics.svc.cluster.local",
    work_us: 2_700.0,
    ..PRICE_READ
};
pub(super) static STOCK_RESERVE: Query = Query {
    operation: "UPDATE",
    text: "UPDATE stock SET available = available - $2 WHERE sku = $1 AND available >= $2",
    work_us: 4_100.0,
    ..STOCK_READ
};
pub(super) static CHARGE_WRITE: Query = Query {
    database: "payment",
    operation: "INSERT",
    collection: "charges",
    text: "INSERT INTO charges (id, order_id, amount_minor, currency, state) VALUES ($1, $2, $3, $4, $5)",
    host: "payment-pg-rw.finance.svc.cluster.local",
    work_us: 5_200.0,
    ..PRICE_READ
};
pub(super) static ORDER_WRITE: Query = Query {
    database: "orders",
    operation: "INSERT",
    collection: "orders",
    text: "INSERT INTO orders (id, user_id, total_minor, currency, placed_at) VALUES ($1, $2, $3, $4, now())",
    host: "orders-pg-rw.sales.svc.cluster.local",
    work_us: 4_600.0,
    ..PRICE_READ
};
pub(super) static PRODUCT_SEARCH: Query = Query {
    system: "elasticsearch",
    database: "products-v7",
    operation: "search",
    collection: "products",
    text: "{\"query\":{\"multi_match\":{\"query\":\"?\",\"fields\":[\"title^3\",\"brand\",\"text\"]}},\"size\":\"?\"}",
    host: "products-es.discovery.svc.cluster.local",
    port: 9200,
    work_us: 14_000.0,
};
pub(super) static FEATURE_READ: Query = Query {
    operation: "MGET",
    collection: "features",
    text: "MGET features:? features:? features:? features:?",
    host: "features-redis.discovery.svc.cluster.local",
    work_us: 700.0,
    ..CART_READ
};
