//! The API as a table: each operation is said once, and becomes a route and a part of the OpenAPI document.

use std::collections::BTreeMap;

use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Router, http::StatusCode};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::gate::at_least;
use super::state::State;
use super::tokens::Role;
use super::wire::{PROBLEM_JSON, Problem};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Collects operations.
pub struct Api {
    router: Router<State>,
    paths: BTreeMap<&'static str, Map<String, Value>>,
    schemas: SchemaGenerator,
}

/// One operation.
pub struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    role: Option<Role>,
    parameters: Vec<Value>,
    body: Option<(Vec<&'static str>, SchemaOf, bool)>,
    answers: BTreeMap<u16, (&'static str, &'static str, Option<SchemaOf>)>,
    /// Other types that an answer comes in.
    more_types: Vec<(u16, &'static str)>,
    refusals: Vec<u16>,
}

impl Operation {
    fn new(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let pieces = path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'));
        Self {
            method,
            path,
            id,
            summary,
            role: None,
            parameters: pieces.map(path_parameter).collect(),
            body: None,
            answers: BTreeMap::new(),
            more_types: Vec::new(),
            refusals: vec![400, 403, 421, 429, 503],
        }
    }

    /// One that everyone who gets in may ask.
    pub fn open(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("get", path, id, summary)
    }

    /// One that reads.
    pub fn read(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let mut operation = Self::new(method, path, id, summary);
        operation.role = Some(Role::Viewer);
        operation.refusals.push(401);
        if path.contains('{') {
            operation.refusals.push(404);
        }
        operation
    }

    /// One that changes, with the terms of every change.
    pub fn change(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let mut operation = Self::read(method, path, id, summary);
        operation.role = Some(Role::Operator);
        operation.refusals.extend([404, 413, 415, 422, 428]);
        for (name, schema, text) in [
            ("dry_run", json!({"type": "boolean"}), "Only say what would be done."),
            (
                "allow_flips",
                json!({"type": "boolean"}),
                "Users may move backwards out of a growing release.",
            ),
            (
                "at",
                json!({"type": "string", "format": "date-time"}),
                "When it is to be made; now where left out.",
            ),
        ] {
            operation = operation.query(name, schema, text);
        }
        let reason = json!({"type": "string", "maxLength": 1000});
        let key = json!({"type": "string", "pattern": "^[!-~]{1,255}$"});
        let source = json!({"type": "string", "enum": ["api", "cli", "console"]});
        for (name, schema, text) in [
            ("X-Reason", reason, "Why; UTF-8, percent-encoded or not."),
            ("Idempotency-Key", key, "Makes a repeated request harmless, for a day."),
            ("X-Source", source, "Where the change comes from."),
        ] {
            operation.parameters.push(parameter("header", name, schema, text));
        }
        let expected = "The revision that what is changed must have; that of the whole state counts too.";
        operation
            .if_match(expected)
            .answer::<super::wire::Changed>(200, "Made, and live on this node; or nothing was to be changed.")
            .answer::<super::wire::Changed>(202, "Committed, and not yet live on this node; or scheduled.")
    }

    /// The revision that is expected.
    pub fn if_match(mut self, text: &str) -> Self {
        let revision = json!({"type": "string", "pattern": "^\"[0-9]{1,19}\"$"});
        self.parameters.push(parameter("header", "If-Match", revision, text));
        self.refusals.push(409);
        self
    }

    /// A query parameter.
    pub fn query(mut self, name: &str, schema: Value, text: &str) -> Self {
        self.parameters.push(parameter("query", name, schema, text));
        self
    }

    /// A JSON body.
    pub fn takes<T: JsonSchema>(mut self, required: bool) -> Self {
        self.body = Some((vec!["application/json"], SchemaGenerator::subschema_for::<T>, required));
        self.refusals.extend([413, 415, 422]);
        self
    }

    /// A JSON body under another type, too.
    pub fn or_as(mut self, media_type: &'static str) -> Self {
        if let Some((types, ..)) = &mut self.body {
            types.push(media_type);
        }
        self
    }

    /// A body of text, line by line.
    pub fn takes_lines(mut self) -> Self {
        use super::wire::{CSV, NDJSON, PLAIN};
        self.body = Some((vec![NDJSON, CSV, PLAIN], SchemaGenerator::subschema_for::<String>, true));
        self
    }

    /// A JSON answer.
    pub fn answer<T: JsonSchema>(mut self, status: u16, text: &'static str) -> Self {
        let schema = Some(SchemaGenerator::subschema_for::<T> as SchemaOf);
        self.answers.insert(status, (text, "application/json", schema));
        self
    }

    /// An answer of another type.
    pub fn answer_as(mut self, status: u16, media_type: &'static str, text: &'static str) -> Self {
        self.answers.insert(status, (text, media_type, None));
        self
    }

    /// The same answer of one more type, where it is asked for.
    pub fn or_answer_as(mut self, status: u16, media_type: &'static str) -> Self {
        self.more_types.push((status, media_type));
        self
    }

    fn written(&self, schemas: &mut SchemaGenerator) -> Value {
        let mut answers = Map::new();
        for (status, (text, media_type, schema)) in &self.answers {
            let schema = schema.map_or_else(|| json!({"type": "string"}), |of| of(schemas).to_value());
            let mut content = json!({ *media_type: { "schema": schema } });
            for (_, other) in self.more_types.iter().filter(|(of, _)| of == status) {
                content[*other] = json!({ "schema": schema });
            }
            answers.insert(status.to_string(), json!({"description": text, "content": content}));
        }
        let problem = schemas.subschema_for::<Problem>().to_value();
        for status in &self.refusals {
            let reason = StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason());
            let answer = json!({
                "description": reason.unwrap_or_default(),
                "content": { PROBLEM_JSON: { "schema": problem } },
            });
            answers.entry(status.to_string()).or_insert(answer);
        }
        let mut written = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": answers,
        });
        if let Some((types, schema, required)) = &self.body {
            let schema = schema(schemas).to_value();
            let content: Map<String, Value> = types
                .iter()
                .map(|kind| ((*kind).to_owned(), json!({ "schema": schema })))
                .collect();
            written["requestBody"] = json!({"required": required, "content": content});
        }
        if let Some(role) = self.role {
            written["security"] = json!([{ "token": [] }]);
            written["x-role"] = role.as_str().into();
        } else {
            written["security"] = json!([]);
        }
        written
    }
}

impl Api {
    /// No operations yet.
    pub fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|s| {
            s.definitions_path = "/components/schemas".into();
            s.meta_schema = None;
        });
        Self {
            router: Router::new(),
            paths: BTreeMap::new(),
            schemas: settings.into_generator(),
        }
    }

    /// Adds an operation and what answers it.
    pub fn add<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        let filter = match operation.method {
            "put" => MethodFilter::PUT,
            "post" => MethodFilter::POST,
            "patch" => MethodFilter::PATCH,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let mut route: MethodRouter<State> = on(filter, handler);
        if let Some(role) = operation.role {
            route = route.route_layer(from_fn_with_state(role, at_least));
        }
        let written = operation.written(&mut self.schemas);
        self.paths
            .entry(operation.path)
            .or_default()
            .insert(operation.method.to_owned(), written);
        self.router = self.router.route(operation.path, route);
        self
    }

    /// Describes types that are in no body.
    pub fn describes<T: JsonSchema>(mut self) -> Self {
        self.schemas.subschema_for::<T>();
        self
    }

    /// The routes, and the document.
    pub fn build(mut self) -> (Router<State>, Value) {
        let schemas = self.schemas.take_definitions(true);
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Switchyard",
                "version": env!("CARGO_PKG_VERSION"),
                "description": DESCRIPTION,
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            },
        });
        (self.router, document)
    }
}

const DESCRIPTION: &str = "Change who goes where, while traffic flows. Without admin.tokens_file only this machine is \
served, by a loopback Host, and everything is allowed. With it every request needs `Authorization: Bearer TOKEN`, save \
/, /healthz and /readyz; /metrics needs a viewer like every other read. Changes need an operator. Errors are \
application/problem+json; `type` is one of malformed, unauthorised, forbidden, cross-origin, not-found, method, \
conflict, too-large, media-type, misdirected, invalid, refused, frozen, flips, key-reused, unconditional, busy, timeout, \
store, read-only, behind and broken.";

fn parameter(place: &str, name: &str, schema: Value, text: &str) -> Value {
    json!({"in": place, "name": name, "required": place == "path", "schema": schema, "description": text})
}

fn path_parameter(name: &str) -> Value {
    let pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";
    let (schema, text) = match name {
        "user" => (
            json!({"type": "string", "minLength": 1, "maxLength": 1024}),
            "A user id.",
        ),
        "id" => (
            json!({"type": "integer", "format": "int64", "minimum": 1}),
            "The number of a scheduled change.",
        ),
        "segment" => (json!({"type": "string", "pattern": pattern}), "The name of a segment."),
        _ => (json!({"type": "string", "pattern": pattern}), "The name of a rollout."),
    };
    parameter("path", name, schema, text)
}
