//! bench
use crate::cli::table::{Call, Plan, Refusal};
pub fn plan(_: &Call<'_>) -> Result<Plan, Refusal> {
    Err(Refusal::Usage("not yet".into()))
}
