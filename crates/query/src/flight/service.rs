//! One method per call of the protocol.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, Command, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, BasicAuth, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData,
    FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::answer::{Answer, Stops, Work};
use super::describe::Descriptions;
use super::listener::Peer;
use super::session::{Promised, Session, Sessions};
use super::{ingest, parameters, status};
use crate::dialect::shown_schema;
use crate::engine::Limits;
use crate::error::QueryError;
use crate::guard::{Served, check_statement};

/// What a client can have done beside asking: name and meaning.
const ACTIONS: [(&str, &str); 5] = [
    (
        "CreatePreparedStatement",
        "Prepares a statement. Request: ActionCreatePreparedStatementRequest, response: ActionCreatePreparedStatementResult.",
    ),
    ("ClosePreparedStatement", "Forgets a prepared statement. Request: ActionClosePreparedStatementRequest."),
    ("CancelFlightInfo", "Stops a statement. Request: CancelFlightInfoRequest, response: CancelFlightInfoResult."),
    ("CancelQuery", "The same for older clients. Request: ActionCancelQueryRequest, response: ActionCancelQueryResult."),
    ("CloseSession", "Ends the session: its tickets, prepared statements and token. Response: CloseSessionResult."),
];

/// The only answer to `CloseSession` here: it is closed. Source: Flight.proto, `CloseSessionResult`.
#[derive(Clone, PartialEq, Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `CloseSessionResult.Status.CLOSED`.
const SESSION_CLOSED: i32 = 1;

/// The protocol over the sessions of a server.
pub(super) struct Service {
    sessions: Sessions,
    descriptions: Descriptions,
    /// True when what is still running must end.
    cut: watch::Receiver<bool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

impl Service {
    pub(super) fn new(sessions: Sessions, limits: &Limits, cut: watch::Receiver<bool>) -> Result<Self, FlightError> {
        Ok(Self { sessions, descriptions: Descriptions::new(limits)?, cut })
    }

    async fn session<T>(&self, request: &Request<T>) -> Result<Arc<Session>, Status> {
        self.sessions.of(request.metadata(), address(request)).await
    }

    /// Plans a statement that only reads.
    async fn plan(&self, session: &Session, text: &str) -> Result<Work, Status> {
        let engine = &session.engine;
        let planned = async {
            let statement = engine.parse_one(&parameters::numbered(text)?)?;
            if check_statement(&statement)? != Served::Engine {
                // SET, BEGIN and their like arrange a connection, which there is none of here; COPY has its own calls.
                return Err(QueryError::ReadOnly { statement: statement.to_string() });
            }
            let (_, plan) = engine.frame(statement).await?.into_parts();
            Ok(Work { plan, parameters: None })
        };
        let limit = engine.statement_time();
        let in_time = tokio::time::timeout(limit, planned).await;
        in_time.unwrap_or(Err(QueryError::Timeout { limit })).map_err(|e| status::of(&e))
    }

    /// The statement that a descriptor speaks of, planned; none if it speaks of something else.
    async fn statement(&self, session: &Session, command: &Command) -> Result<Option<Promised>, Status> {
        let work = match command {
            Command::CommandStatementQuery(query) => {
                no_transaction(query.transaction_id.as_ref())?;
                let _place = session.place()?;
                self.plan(session, &query.query).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                let prepared = session.prepared(&query.prepared_statement_handle)?;
                if prepared.n_parameters > 0 && prepared.work.parameters.is_none() {
                    return Err(Status::invalid_argument(format!(
                        "the statement has {} parameters, none are bound",
                        prepared.n_parameters
                    )));
                }
                prepared.work
            }
            _ => return Ok(None),
        };
        Ok(Some(promise(work)?))
    }

    async fn info(&self, session: &Session, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let command = command(&descriptor.cmd)?;
        let (schema, ticket) = match self.statement(session, &command).await? {
            Some(promised) => {
                let schema = promised.schema.clone();
                let handle = session.promise(promised);
                (schema, TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec().into())
            }
            // The answer to a metadata call costs little: its ticket is the question.
            None => (self.descriptions.schema(&command).ok_or_else(|| unknown(&command))?, descriptor.cmd.clone()),
        };
        let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
        let info = FlightInfo::new().try_with_schema(&schema).map_err(|e| Status::internal(e.to_string()))?;
        Ok(info.with_endpoint(endpoint).with_descriptor(descriptor).with_ordered(true))
    }

    /// The rows behind a ticket.
    async fn rows(
        &self,
        session: &Session,
        ticket: &Ticket,
    ) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch, FlightError>>), Status> {
        let (promised, cancelled) = match command(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => {
                let handle = str::from_utf8(&ticket.statement_handle).unwrap_or_default();
                session.redeem(handle)?
            }
            // Some clients redeem the handle of a prepared statement itself.
            prepared @ Command::CommandPreparedStatementQuery(_) => {
                let promised = self.statement(session, &prepared).await?;
                (promised.ok_or_else(|| unknown(&prepared))?, watch::channel(false).1)
            }
            other => {
                let what = other.type_url().to_owned();
                let batch = self.descriptions.answer(other, &session.engine).await?;
                let batch = batch.ok_or_else(|| Status::unimplemented(format!("`{what}` cannot be fetched")))?;
                return Ok((batch.schema(), futures::stream::iter([Ok(batch)]).boxed()));
            }
        };
        let stops = Stops { cancelled, cut: self.cut.clone() };
        let Promised { work, schema } = promised;
        let answer = Answer::new(session.engine.clone(), work, schema.clone(), stops, session.place()?);
        Ok((schema, answer.batches().boxed()))
    }

    async fn create_prepared(&self, session: &Session, text: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
        let _place = session.place()?;
        let work = self.plan(session, text).await?;
        let parameters = parameters::schema(&work.plan).map_err(|e| status::of(&e))?;
        let dataset_schema = encoded(&shown_schema(work.plan.schema().as_arrow()))?;
        let handle = session.prepare(work, parameters.fields().len())?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into(),
            dataset_schema,
            parameter_schema: encoded(&parameters)?,
        })
    }

    /// Takes the parameters of a prepared statement.
    async fn bind(&self, session: &Session, handle: &[u8], rows: FlightRecordBatchStream) -> Result<(), Status> {
        let prepared = session.prepared(handle)?;
        let mut bound = parameters::Bound::default();
        let mut rows = rows;
        while let Some(batch) = rows.try_next().await.map_err(unreadable)? {
            bound.add(batch).map_err(|e| status::of(&e))?;
        }
        let parameters = bound.finish(prepared.n_parameters).map_err(|e| status::of(&e))?;
        session.bind(handle, Work { parameters, ..prepared.work })
    }

    /// Stops the statements behind the tickets of an answer.
    fn cancel(session: &Session, info: Option<&FlightInfo>) -> Result<CancelStatus, Status> {
        let mut status = CancelStatus::NotCancellable;
        for ticket in info.iter().flat_map(|info| &info.endpoint).filter_map(|e| e.ticket.as_ref()) {
            if let Command::TicketStatementQuery(ticket) = command(&ticket.ticket)?
                && session.cancel(str::from_utf8(&ticket.statement_handle).unwrap_or_default())
            {
                status = CancelStatus::Cancelled;
            }
        }
        Ok(status)
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        let (headers, address) = (request.metadata().clone(), address(&request));
        // Older clients put user and password into the message instead of the header.
        let payload = request.into_inner().message().await?.map(|m| m.payload).filter(|p| !p.is_empty());
        let payload = payload.and_then(|p| BasicAuth::decode(p).ok()).map(|auth| (auth.username, auth.password));
        let token = self.sessions.log_in(&headers, payload, address).await?;
        let bearer = format!("Bearer {token}").parse().map_err(|_| Status::internal("a token that is no header"))?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.into() };
        let mut response = Response::new(Box::pin(futures::stream::iter([Ok(answer)])) as Self::HandshakeStream);
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented("this is a Flight SQL server: ask for its tables by CommandGetTables"))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let session = self.session(&request).await?;
        self.info(&session, request.into_inner()).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let session = self.session(&request).await?;
        // Planned at once; the work is done while the rows are fetched, so there is nothing to wait for.
        let info = self.info(&session, request.into_inner()).await?;
        Ok(Response::new(PollInfo::new().with_info(info)))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let session = self.session(&request).await?;
        let command = command(&request.into_inner().cmd)?;
        let schema = match self.statement(&session, &command).await? {
            Some(promised) => promised.schema,
            None => self.descriptions.schema(&command).ok_or_else(|| unknown(&command))?,
        };
        Ok(Response::new(SchemaResult { schema: encoded(&schema)? }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let session = self.session(&request).await?;
        let (schema, rows) = self.rows(&session, request.get_ref()).await?;
        let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
        Ok(Response::new(Box::pin(encoded.map_err(Status::from))))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let session = self.session(&request).await?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the call ended before its first message"))?;
        let descriptor = first.flight_descriptor.clone();
        let descriptor =
            descriptor.ok_or_else(|| Status::invalid_argument("the first message of a call that sends rows has no descriptor"))?;
        let rows = || {
            let all = futures::stream::iter([Ok(first)]).chain(messages.map_err(FlightError::from));
            FlightRecordBatchStream::new_from_flight_data(all)
        };
        let answer = match command(&descriptor.cmd)? {
            Command::CommandStatementIngest(command) => {
                no_transaction(command.transaction_id.as_ref())?;
                let _place = session.place()?;
                let mut stops = Stops { cancelled: watch::channel(false).1, cut: self.cut.clone() };
                let n_rows = tokio::select! {
                    status = stops.stopped() => return Err(status),
                    n_rows = ingest::ingest(&session, &command, rows()) => n_rows?,
                };
                DoPutUpdateResult { record_count: i64::try_from(n_rows).unwrap_or(i64::MAX) }.encode_to_vec()
            }
            Command::CommandPreparedStatementQuery(command) => {
                let handle = command.prepared_statement_handle;
                self.bind(&session, &handle, rows()).await?;
                DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) }.encode_to_vec()
            }
            Command::CommandStatementUpdate(command) => {
                return Err(status::of(&QueryError::ReadOnly { statement: command.query.chars().take(80).collect() }));
            }
            Command::CommandPreparedStatementUpdate(_) => {
                return Err(status::of(&QueryError::ReadOnly { statement: "a statement without rows".to_owned() }));
            }
            other => return Err(unknown(&other)),
        };
        let answer = PutResult { app_metadata: answer.into() };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let session = self.session(&request).await?;
        let action = request.into_inner();
        let body = &action.body;
        let answer = match action.r#type.as_str() {
            "CreatePreparedStatement" => {
                let request: ActionCreatePreparedStatementRequest = unpack(body)?;
                no_transaction(request.transaction_id.as_ref())?;
                Some(self.create_prepared(&session, &request.query).await?.as_any().encode_to_vec())
            }
            "ClosePreparedStatement" => {
                let request: ActionClosePreparedStatementRequest = unpack(body)?;
                session.close(&request.prepared_statement_handle)?;
                None
            }
            "CancelFlightInfo" => {
                let request = CancelFlightInfoRequest::decode(body.as_ref()).map_err(malformed)?;
                let cancelled = Self::cancel(&session, request.info.as_ref())?;
                Some(CancelFlightInfoResult::new(cancelled).encode_to_vec())
            }
            "CancelQuery" => {
                let request: ActionCancelQueryRequest = unpack(body)?;
                let info = FlightInfo::decode(request.info.as_ref()).map_err(malformed)?;
                // The two messages number their answers alike.
                let cancelled = Self::cancel(&session, Some(&info))? as i32;
                Some(ActionCancelQueryResult { result: cancelled }.as_any().encode_to_vec())
            }
            "CloseSession" => {
                self.sessions.close(&session);
                Some(CloseSessionResult { status: SESSION_CLOSED }.encode_to_vec())
            }
            other => {
                let known: Vec<&str> = ACTIONS.iter().map(|(name, _)| *name).collect();
                return Err(Status::unimplemented(format!("unknown action `{other}` (expected one of {})", known.join(", "))));
            }
        };
        let answers = answer.map(|body| Ok(arrow_flight::Result { body: body.into() }));
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = ACTIONS.map(|(name, meaning)| Ok(ActionType { r#type: name.to_owned(), description: meaning.to_owned() }));
        Ok(Response::new(Box::pin(futures::stream::iter(actions))))
    }

    async fn do_exchange(&self, _request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoExchange is not part of Flight SQL"))
    }
}

/// Plans the columns: what the client is told is what it gets.
fn promise(work: Work) -> Result<Promised, Status> {
    let schema = if work.parameters.as_ref().is_some_and(|p| p.num_rows() == 0) {
        shown_schema(work.plan.schema().as_arrow())
    } else {
        shown_schema(work.bound(0).map_err(|e| status::of(&e))?.schema().as_arrow())
    };
    Ok(Promised { work, schema: Arc::new(schema) })
}

fn address<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// The command inside a descriptor or a ticket.
fn command(bytes: &[u8]) -> Result<Command, Status> {
    let any = Any::decode(bytes).map_err(malformed)?;
    Command::try_from(any).map_err(|e| Status::invalid_argument(format!("not a Flight SQL message: {e}")))
}

fn unpack<M: ProstMessageExt>(bytes: &[u8]) -> Result<M, Status> {
    let any = Any::decode(bytes).map_err(malformed)?;
    let message = any.unpack().map_err(|e| Status::invalid_argument(format!("not a Flight SQL message: {e}")))?;
    message.ok_or_else(|| Status::invalid_argument(format!("expected `{}`, found `{}`", M::type_url(), any.type_url)))
}

fn malformed(error: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("not a Flight SQL message: {error}"))
}

/// Rows that a client sent and that cannot be read.
fn unreadable(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::invalid_argument(format!("the rows cannot be read: {other}")),
    }
}

fn unknown(command: &Command) -> Status {
    Status::unimplemented(format!("`{}` is not served", command.type_url()))
}

fn no_transaction<T>(id: Option<&T>) -> Result<(), Status> {
    match id {
        None => Ok(()),
        Some(_) => Err(Status::invalid_argument("there are no transactions here: statements are answered one by one")),
    }
}

fn encoded(schema: &Schema) -> Result<prost::bytes::Bytes, Status> {
    FlightInfo::new().try_with_schema(schema).map(|info| info.schema).map_err(|e| Status::internal(e.to_string()))
}
