//! The shop of the demo: people who look around, sign up, fill carts and sometimes buy. Seeded: every run is alike.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::domain::Timestamp;

/// People who come to the shop.
pub(super) const PEOPLE: usize = 200;
const SEED: u64 = 7;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// How far back the history goes.
const HISTORY_DAYS: i64 = 30;

struct Product {
    id: &'static str,
    name: &'static str,
    category: &'static str,
    price: f64,
}

const fn product(id: &'static str, name: &'static str, category: &'static str, price: f64) -> Product {
    Product { id, name, category, price }
}

const PRODUCTS: [Product; 10] = [
    product("p-1", "Moka pot", "coffee", 34.90),
    product("p-2", "Espresso beans 1 kg", "coffee", 24.50),
    product("p-3", "Hand grinder", "coffee", 89.00),
    product("p-4", "Teapot, cast iron", "tea", 64.00),
    product("p-5", "Sencha 100 g", "tea", 14.20),
    product("p-6", "Matcha set", "tea", 48.00),
    product("p-7", "Chef's knife", "kitchen", 119.00),
    product("p-8", "Cutting board", "kitchen", 39.00),
    product("p-9", "Stand mixer", "kitchen", 329.00),
    product("p-10", "Apron", "kitchen", 27.00),
];
const FIRST_NAMES: [&str; 20] = [
    "Ada", "Alan", "Barbara", "Claude", "Dorothy", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Joan",
    "Ken", "Leslie", "Margaret", "Niklaus", "Ole", "Radia", "Sophie", "Tim", "Yukihiro",
];
const LAST_NAMES: [&str; 10] =
    ["Ahrens", "Berg", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haas", "Ito", "Jansen"];
const CITIES: [&str; 6] = ["Berlin", "Lisbon", "Lyon", "Oslo", "Vienna", "Zurich"];

/// Somebody in the shop.
#[derive(Debug, Clone, Default)]
struct Person {
    is_known: bool,
    /// Places in [`PRODUCTS`].
    cart: Vec<usize>,
    seen: Option<usize>,
    /// Between 0 and 1: how likely they go on to the next step.
    zeal: f64,
    taste: usize,
}

/// All that happens in the shop.
pub(super) struct Shop {
    random: StdRng,
    people: Vec<Person>,
    sent: u64,
    orders: u64,
}

impl Shop {
    pub(super) fn new() -> Self {
        let mut random = StdRng::seed_from_u64(SEED);
        let person = |random: &mut StdRng| Person {
            zeal: random.random_range(0.15..0.95),
            taste: random.random_range(0..PRODUCTS.len()),
            ..Person::default()
        };
        let people = (0..PEOPLE).map(|_| person(&mut random)).collect();
        Self { random, people, sent: 0, orders: 0 }
    }

    /// What happened in the last days, oldest first.
    pub(super) fn history(&mut self, now: Timestamp) -> Vec<Value> {
        let mut visits: Vec<(i64, usize)> = Vec::new();
        for who in 0..self.people.len() {
            let count = self.random.random_range(1..=5);
            let at =
                |random: &mut StdRng| now.millis() - random.random_range(MINUTE_MS..HISTORY_DAYS * DAY_MS);
            visits.extend((0..count).map(|_| (at(&mut self.random), who)));
        }
        visits.sort_unstable();
        let mut events = Vec::new();
        for (mut at, who) in visits {
            for _ in 0..self.random.random_range(2..9) {
                let step = self.step(who);
                events.extend(step.into_iter().map(|event| (at, stamped(event, at))));
                at = (at + self.random.random_range(MINUTE_MS / 4..2 * MINUTE_MS)).min(now.millis());
            }
        }
        // Visits overlap.
        events.sort_by_key(|(at, _)| *at);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// What a few people do now.
    pub(super) fn now(&mut self, now: Timestamp) -> Vec<Value> {
        let busy = self.random.random_range(4..10);
        let mut events = Vec::new();
        for _ in 0..busy {
            let who = self.random.random_range(0..self.people.len());
            events.extend(self.step(who).into_iter().map(|event| stamped(event, now.millis())));
        }
        events
    }

    /// One person's next step.
    fn step(&mut self, who: usize) -> Vec<Value> {
        let Some(person) = self.people.get(who).cloned() else { return Vec::new() };
        let goes_on = self.random.random_bool(person.zeal);
        let mut next = person.clone();
        let event = match person.seen {
            None => {
                let near = self.random.random_range(0..3);
                let item = (person.taste + near) % PRODUCTS.len();
                next.seen = Some(item);
                let viewed = "Product Viewed";
                self.track(who, &person, viewed, &PRODUCTS.get(item).map_or(Value::Null, show))
            }
            Some(item) if goes_on && person.cart.len() < 3 => {
                next.seen = None;
                next.cart.push(item);
                let mut properties = PRODUCTS.get(item).map_or(Value::Null, show);
                properties["cart_id"] = json!(format!("cart-{who}"));
                properties["quantity"] = json!(1);
                self.track(who, &person, "Product Added", &properties)
            }
            Some(_) if person.cart.is_empty() || !goes_on => {
                next.seen = None;
                let category = PRODUCTS.get(person.taste).map_or("", |p| p.category);
                self.track(
                    who,
                    &person,
                    "Product List Viewed",
                    &json!({"list_id": category, "category": category}),
                )
            }
            Some(_) => {
                (next.seen, next.is_known, next.cart) = (None, true, Vec::new());
                let known = next.clone();
                let mut events: Vec<Value> =
                    (!person.is_known).then(|| self.sign_up(who)).into_iter().collect();
                events.push(self.order(who, &known, &person.cart));
                self.put(who, next);
                return events;
            }
        };
        let mut events = vec![event];
        if !next.is_known && self.random.random_bool(0.05) {
            next.is_known = true;
            events.push(self.sign_up(who));
        }
        self.put(who, next);
        events
    }

    fn put(&mut self, who: usize, next: Person) {
        if let Some(place) = self.people.get_mut(who) {
            *place = next;
        }
    }

    fn sign_up(&mut self, who: usize) -> Value {
        let (first, last) = (pick(&FIRST_NAMES, who), pick(&LAST_NAMES, who / FIRST_NAMES.len()));
        let email = format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase());
        json!({
            "type": "identify", "messageId": self.message_id(),
            "userId": user_id(who), "anonymousId": anonymous_id(who),
            "traits": {"name": format!("{first} {last}"), "email": email, "city": pick(&CITIES, who)},
        })
    }

    fn order(&mut self, who: usize, person: &Person, cart: &[usize]) -> Value {
        self.orders += 1;
        let products: Vec<Value> = cart.iter().filter_map(|item| PRODUCTS.get(*item)).map(show).collect();
        let cents: i64 =
            cart.iter().filter_map(|i| PRODUCTS.get(*i)).map(|p| (p.price * 100.0).round() as i64).sum();
        let total = cents as f64 / 100.0;
        let properties = json!({
            "order_id": format!("order-{}", self.orders), "total": total, "revenue": total, "currency": "EUR",
            "products": products,
        });
        self.track(who, person, "Order Completed", &properties)
    }

    fn track(&mut self, who: usize, person: &Person, event: &str, properties: &Value) -> Value {
        let mut call = json!({
            "type": "track", "messageId": self.message_id(), "anonymousId": anonymous_id(who),
            "event": event, "properties": properties,
            "context": {"page": {"url": "https://shop.example.com/"}, "locale": "en-GB"},
        });
        if person.is_known {
            call["userId"] = json!(user_id(who));
        }
        call
    }

    fn message_id(&mut self) -> String {
        self.sent += 1;
        format!("demo-{:06}", self.sent)
    }
}

fn show(product: &Product) -> Value {
    let Product { id, name, category, price } = product;
    json!({"product_id": id, "sku": id, "name": name, "category": category, "price": price})
}

fn pick(list: &[&'static str], at: usize) -> &'static str {
    list.get(at % list.len().max(1)).copied().unwrap_or_default()
}

fn stamped(mut event: Value, at: i64) -> Value {
    event["timestamp"] = json!(Timestamp::from_millis(at).to_string());
    event
}

/// Their id once they have an account.
pub(super) fn user_id(who: usize) -> String {
    format!("customer-{:03}", who + 1)
}

fn anonymous_id(who: usize) -> String {
    format!("browser-{:03}", who + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_alike_and_people_buy() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let events = Shop::new().history(now);
        assert_eq!(events, Shop::new().history(now));
        let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
        assert!(count("Product Viewed") > 500, "{}", count("Product Viewed"));
        assert!((80..800).contains(&count("Order Completed")), "{}", count("Order Completed"));
        assert!(events.iter().all(|e| e["timestamp"].as_str().unwrap() <= now.to_string().as_str()));
    }
}
