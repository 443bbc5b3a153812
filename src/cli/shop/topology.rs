//! What the shop is made of: its services, what they offer each other, and how long each part usually takes.
//!
//! A table, not code: `walk` plays it. Medians are in microseconds of own work, without what is called.

use super::runtimes::{GO, JAVA, NODE, PYTHON, Runtime};
use super::statements::{
    CART_READ, CART_WRITE, CHARGE_WRITE, FEATURE_READ, ORDER_WRITE, PRICE_READ, PRODUCT_SEARCH, Query, SESSION_READ,
    STOCK_READ, STOCK_RESERVE, USER_READ,
};

/// One service of the shop.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
    pub(super) version: &'static str,
    pub(super) runtime: &'static Runtime,
}

/// Something a service offers: one entry span (SERVER or CONSUMER) and what happens below it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) service: &'static Service,
    pub(super) door: Door,
    /// Own work, half of it before the steps and half after.
    pub(super) work_us: f64,
    /// Share of calls that fail by themselves.
    pub(super) failing: f64,
    pub(super) steps: &'static [Step],
}

/// How an endpoint is called.
#[derive(Debug)]
pub(super) enum Door {
    Http {
        method: &'static str,
        route: &'static str,
    },
    /// The fully qualified method name.
    Rpc(&'static str),
    Queue(&'static str),
}

/// What an endpoint does.
#[derive(Debug)]
pub(super) enum Step {
    /// CLIENT span here, SERVER span there.
    Call(&'static Endpoint),
    /// INTERNAL span around further steps.
    Inside { function: &'static str, work_us: f64, steps: &'static [Step] },
    /// CLIENT span to a database.
    Query(&'static Query),
    /// CLIENT span to a host that sends no spans.
    External { host: &'static str, path: &'static str, work_us: f64, failing: f64 },
    /// PRODUCER span here, later a CONSUMER span there.
    Publish(&'static Endpoint),
    /// All start at the same time; the slowest decides.
    Together(&'static [Step]),
    /// Between `low` and `high` times, one after the other.
    Repeat { low: u64, high: u64, step: &'static Step },
}

const fn service(
    name: &'static str,
    namespace: &'static str,
    version: &'static str,
    runtime: &'static Runtime,
) -> Service {
    Service { name, namespace, version, runtime }
}

static FRONTEND: Service = service("frontend", "web", "5.18.2", &NODE);
static CART: Service = service("cart", "sales", "2.7.0", &GO);
static CHECKOUT: Service = service("checkout", "sales", "3.41.1", &JAVA);
static PRICING: Service = service("pricing", "sales", "1.12.9", &GO);
/// The service that is slow in one zone, see `walk`.
pub(super) static PAYMENT: Service = service("payment", "finance", "4.2.0", &JAVA);
static SHIPPING: Service = service("shipping", "logistics", "1.30.4", &GO);
static INVENTORY: Service = service("inventory", "logistics", "2.2.2", &JAVA);
static EMAIL: Service = service("email", "messaging", "0.19.0", &PYTHON);
static RECOMMENDATION: Service = service("recommendation", "discovery", "0.44.1", &PYTHON);
static SEARCH: Service = service("search", "discovery", "6.0.3", &JAVA);
static USER: Service = service("user", "identity", "2.10.5", &NODE);
static ADS: Service = service("ads", "discovery", "1.1.8", &GO);

/// Every service, in the order of their processes.
pub(super) static SERVICES: [&Service; 12] = [
    &FRONTEND,
    &CART,
    &CHECKOUT,
    &PRICING,
    &PAYMENT,
    &SHIPPING,
    &INVENTORY,
    &EMAIL,
    &RECOMMENDATION,
    &SEARCH,
    &USER,
    &ADS,
];

static USER_AUTHENTICATE: Endpoint = Endpoint {
    service: &USER,
    door: Door::Rpc("identity.v1.Sessions/Authenticate"),
    work_us: 900.0,
    failing: 0.007,
    steps: &[Step::Query(&SESSION_READ)],
};
static USER_PROFILE: Endpoint = Endpoint {
    service: &USER,
    door: Door::Http { method: "GET", route: "/users/{user_id}" },
    work_us: 1_800.0,
    failing: 0.010,
    steps: &[Step::Query(&USER_READ)],
};
static PRICE_QUOTE: Endpoint = Endpoint {
    service: &PRICING,
    door: Door::Rpc("pricing.v1.Quotes/QuoteBasket"),
    work_us: 1_500.0,
    failing: 0.010,
    steps: &[
        Step::Query(&PRICE_READ),
        Step::Inside { function: "pricing/discount.(*Engine).Apply", work_us: 1_200.0, steps: &[] },
    ],
};
static STOCK_CHECK: Endpoint = Endpoint {
    service: &INVENTORY,
    door: Door::Rpc("inventory.v2.Stock/Check"),
    work_us: 1_400.0,
    failing: 0.010,
    steps: &[Step::Query(&STOCK_READ)],
};
static STOCK_TAKE: Endpoint = Endpoint {
    service: &INVENTORY,
    door: Door::Rpc("inventory.v2.Stock/Reserve"),
    work_us: 2_200.0,
    failing: 0.020,
    steps: &[Step::Query(&STOCK_READ), Step::Query(&STOCK_RESERVE)],
};
static ADS_PICK: Endpoint = Endpoint {
    service: &ADS,
    door: Door::Http { method: "GET", route: "/ads/slots/{slot_id}" },
    work_us: 2_600.0,
    failing: 0.025,
    steps: &[Step::Query(&FEATURE_READ)],
};
static RECOMMEND: Endpoint = Endpoint {
    service: &RECOMMENDATION,
    door: Door::Rpc("discovery.v1.Recommendations/ForUser"),
    work_us: 6_000.0,
    failing: 0.020,
    steps: &[
        Step::Repeat { low: 1, high: 4, step: &Step::Query(&FEATURE_READ) },
        Step::Inside { function: "recommendation.ranking.Ranker.score", work_us: 11_000.0, steps: &[] },
    ],
};
static SEARCH_PRODUCTS: Endpoint = Endpoint {
    service: &SEARCH,
    door: Door::Http { method: "GET", route: "/products/search" },
    work_us: 3_800.0,
    failing: 0.020,
    steps: &[
        Step::Inside {
            function: "com.example.search.QueryRewriter.rewrite",
            work_us: 900.0,
            steps: &[Step::Query(&SESSION_READ)],
        },
        Step::Repeat { low: 1, high: 3, step: &Step::Query(&PRODUCT_SEARCH) },
        Step::Call(&PRICE_QUOTE),
    ],
};
static CART_GET: Endpoint = Endpoint {
    service: &CART,
    door: Door::Rpc("cart.v1.Carts/Get"),
    work_us: 800.0,
    failing: 0.007,
    steps: &[Step::Query(&CART_READ)],
};
static CART_ADD: Endpoint = Endpoint {
    service: &CART,
    door: Door::Rpc("cart.v1.Carts/AddItem"),
    work_us: 1_100.0,
    failing: 0.010,
    steps: &[Step::Query(&CART_READ), Step::Call(&STOCK_CHECK), Step::Query(&CART_WRITE)],
};
static CHARGE: Endpoint = Endpoint {
    service: &PAYMENT,
    door: Door::Rpc("payment.v3.Payments/Charge"),
    work_us: 3_000.0,
    failing: 0.015,
    steps: &[
        Step::Inside { function: "com.example.payment.FraudCheck.assess", work_us: 4_000.0, steps: &[] },
        Step::External { host: "api.acquirer.example", path: "/v2/authorizations", work_us: 48_000.0, failing: 0.020 },
        Step::Query(&CHARGE_WRITE),
    ],
};
static SHIP_QUOTE: Endpoint = Endpoint {
    service: &SHIPPING,
    door: Door::Http { method: "POST", route: "/shipments/quotes" },
    work_us: 2_000.0,
    failing: 0.015,
    steps: &[Step::External { host: "rates.carrier.example", path: "/v1/rates", work_us: 16_000.0, failing: 0.015 }],
};
static SEND_CONFIRMATION: Endpoint = Endpoint {
    service: &EMAIL,
    door: Door::Queue("order-confirmations"),
    work_us: 7_000.0,
    failing: 0.025,
    steps: &[
        Step::Inside { function: "email.templates.Renderer.render", work_us: 5_000.0, steps: &[] },
        Step::External { host: "smtp-relay.example", path: "/v1/messages", work_us: 60_000.0, failing: 0.025 },
    ],
};
static CHECKOUT_PLACE: Endpoint = Endpoint {
    service: &CHECKOUT,
    door: Door::Http { method: "POST", route: "/checkout" },
    work_us: 5_000.0,
    failing: 0.010,
    steps: &[
        Step::Call(&CART_GET),
        Step::Together(&[Step::Call(&PRICE_QUOTE), Step::Call(&SHIP_QUOTE)]),
        Step::Repeat { low: 1, high: 3, step: &Step::Call(&STOCK_TAKE) },
        Step::Call(&CHARGE),
        Step::Inside {
            function: "com.example.checkout.OrderWriter.place",
            work_us: 1_500.0,
            steps: &[Step::Query(&ORDER_WRITE)],
        },
        Step::Publish(&SEND_CONFIRMATION),
    ],
};

/// The door of the shop that leads through `checkout`.
pub(super) static BUY: Endpoint = Endpoint {
    service: &FRONTEND,
    door: Door::Http { method: "POST", route: "/api/checkout" },
    work_us: 3_000.0,
    failing: 0.005,
    steps: &[Step::Call(&USER_AUTHENTICATE), Step::Call(&CHECKOUT_PLACE)],
};
static HOME: Endpoint = Endpoint {
    service: &FRONTEND,
    door: Door::Http { method: "GET", route: "/" },
    work_us: 6_000.0,
    failing: 0.005,
    steps: &[
        Step::Call(&USER_AUTHENTICATE),
        Step::Together(&[Step::Call(&RECOMMEND), Step::Repeat { low: 1, high: 3, step: &Step::Call(&ADS_PICK) }]),
    ],
};
static FIND: Endpoint = Endpoint {
    service: &FRONTEND,
    door: Door::Http { method: "GET", route: "/api/search" },
    work_us: 2_500.0,
    failing: 0.005,
    steps: &[Step::Call(&SEARCH_PRODUCTS), Step::Call(&ADS_PICK)],
};
static PRODUCT: Endpoint = Endpoint {
    service: &FRONTEND,
    door: Door::Http { method: "GET", route: "/api/products/{product_id}" },
    work_us: 2_800.0,
    failing: 0.005,
    steps: &[Step::Together(&[Step::Call(&PRICE_QUOTE), Step::Call(&STOCK_CHECK), Step::Call(&RECOMMEND)])],
};
static ADD_TO_CART: Endpoint = Endpoint {
    service: &FRONTEND,
    door: Door::Http { method: "POST", route: "/api/cart/items" },
    work_us: 1_900.0,
    failing: 0.005,
    steps: &[Step::Call(&USER_AUTHENTICATE), Step::Call(&CART_ADD)],
};
static ACCOUNT: Endpoint = Endpoint {
    service: &FRONTEND,
    door: Door::Http { method: "GET", route: "/api/account" },
    work_us: 1_600.0,
    failing: 0.005,
    steps: &[Step::Call(&USER_PROFILE), Step::Inside { function: "renderAccount", work_us: 2_000.0, steps: &[] }],
};

/// What visitors do, each with its share of the traces.
pub(super) static JOURNEYS: [(f64, &Endpoint); 6] =
    [(0.24, &BUY), (0.20, &HOME), (0.18, &FIND), (0.18, &PRODUCT), (0.12, &ADD_TO_CART), (0.08, &ACCOUNT)];
