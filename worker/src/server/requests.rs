//! What clients of the JSON dialect ask of a worker.

use bytes::Bytes;
use svcmap_proto::json::{Envelope, JsonError};
use svcmap_proto::time::Timestamp;

use super::Server;
use crate::clients::Client;
use crate::intake::{Arrival, Origin, Terms};
use crate::json;

impl Server {
    /// A client of the JSON dialect said something. It gets exactly one reply to that.
    ///
    /// # Errors
    /// What was wrong with it, which the client is told as well.
    pub fn handle_request<'a>(
        &mut self,
        now: Timestamp,
        from: Envelope,
        body: Result<&'a [u8], JsonError>,
    ) -> Result<(), JsonError> {
        let body = if from.is_short() { body } else { Err(JsonError::new("a long envelope")) };
        // Before it is read: reading is what costs.
        let short = |body: &'a [u8]| match body.len() <= self.json_bytes_max {
            true => Ok(body),
            false => Err(JsonError::new(format_args!("larger than {} bytes", self.json_bytes_max))),
        };
        match body.and_then(short).and_then(json::read) {
            Ok(request) => {
                self.handle_json_job(now, from, &request);
                Ok(())
            }
            Err(error) => {
                self.reply(from, svcmap_proto::json::error(&error));
                Err(error)
            }
        }
    }

    fn handle_json_job(&mut self, now: Timestamp, from: Envelope, request: &json::Request<'_>) {
        let waits = !request.style.is_immediate();
        let origin = if waits { self.clients.next_origin() } else { Origin::Nobody };
        let arrival = Arrival {
            origin,
            payload: Bytes::copy_from_slice(&request.payload),
            terms: Terms {
                deadline: request.deadline.map(|deadline| now + deadline),
                run_limit: request.run_limit,
                priority: request.priority,
                metadata: request.metadata.clone(),
                ..Terms::default()
            },
        };
        let body = match self.admit(now, arrival) {
            Ok(_) if waits => {
                let client = Client { envelope: from, style: request.style };
                return self.clients.insert(origin, client);
            }
            Ok(_) => json::accepted(),
            Err(reason) => json::rejected(request.style, reason, &self.load(now)),
        };
        self.reply(from, body);
    }
}
