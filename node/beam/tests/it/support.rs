//! What the tests share.

use pharos_beam::plan::{Node, Plan, ReadSpec};
use pharos_beam::schema::{Schema, Type};
use pharos_beam::{NoSchemas, SchemaSource, SourceName, check, compile};

pub(crate) fn plan(text: &str) -> Plan {
    compile(text, SourceName::new("p.yaml"), &NoSchemas).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn node<'p>(plan: &'p Plan, name: &str) -> &'p Node {
    let found = plan.nodes.iter().find(|node| node.name == name);
    found.unwrap_or_else(|| panic!("{name} among {:?}", names(plan)))
}

pub(crate) fn names(plan: &Plan) -> Vec<&str> {
    plan.nodes.iter().map(|node| node.name.as_str()).collect()
}

/// Each error as `line:column message (did you mean …?)`.
pub(crate) fn errors(text: &str) -> Vec<String> {
    match check(text, SourceName::new("p")) {
        Ok(_) => match compile(text, SourceName::new("p"), &NoSchemas) {
            Ok(plan) => panic!("no error; {:?}", names(&plan)),
            Err(errors) => lines(&errors),
        },
        Err(errors) => lines(&errors),
    }
}

fn lines(errors: &pharos_beam::Diagnostics) -> Vec<String> {
    errors.as_slice().iter().map(|error| error.summary()[2..].to_owned()).collect()
}

/// Data of one schema.
pub(crate) struct Sampled(pub(crate) Schema);

impl SchemaSource for Sampled {
    fn sample(&self, _read: &ReadSpec) -> Result<Schema, String> {
        Ok(self.0.clone())
    }
}

pub(crate) fn schema(fields: &[(&str, Type)]) -> Schema {
    Schema::new(fields.iter().cloned())
}
