"""What a user can tell about themselves, how they say it, ask for it and correct it, and how it is answered.

In every text {value} is the fact's value, and in what is told and asked {kind} the kind of pet.
"""

from dataclasses import dataclass

from demo_model.words import words

COLOURS = words("colours")
PETS = words("pets")
FOODS = words("foods")
JOBS = words("jobs")


@dataclass(frozen=True)
class Fact:
    """One thing to remember. `answer` is the only right one where it was told, `unknown` where it was not."""

    statements: tuple[str, ...]
    corrections: tuple[str, ...]
    acknowledgements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    unknown: str
    questions_with_kind: tuple[str, ...] = ()


FACTS: dict[str, Fact] = {
    "name": Fact(
        statements=(
            "My name is {value}.",
            "I am {value}.",
            "I'm {value}.",
            "You can call me {value}.",
            "Please call me {value}.",
            "They call me {value}.",
            "I'm called {value}.",
            "My name's {value}.",
            "This is {value}.",
            "My first name is {value}.",
        ),
        corrections=(
            "Actually, my name is {value}.",
            "Please call me {value} from now on.",
            "No, my name is {value}.",
        ),
        acknowledgements=(
            "Nice to meet you, {value}!",
            "Nice to meet you, {value}!",
            "Hello, {value}! It is nice to meet you.",
            "Nice to meet you!",
            "It is a pleasure to meet you.",
        ),
        questions=(
            "What is my name?",
            "What is my name?",
            "What's my name?",
            "Do you remember my name?",
            "Do you still know my name?",
            "Can you tell me my name?",
            "Tell me my name.",
            "Who am I?",
            "What did I say my name was?",
            "Please tell me my name.",
            "Do you know my name?",
            "Do you know who I am?",
            "What am I called?",
            "Say my name.",
            "Remind me of my name.",
            "What name did I give you?",
        ),
        answer="Your name is {value}.",
        unknown="You have not told me your name yet.",
    ),
    "city": Fact(
        statements=(
            "I live in {value}.",
            "My home is in {value}.",
            "I live in the city of {value}.",
            "My city is {value}.",
            "I am from {value}.",
            "I'm from {value}.",
            "I come from {value}.",
            "I'm living in {value}.",
            "My home town is {value}.",
        ),
        corrections=("I have moved to {value}.", "Actually, I live in {value}.", "Now I live in {value}."),
        acknowledgements=(
            "{value} sounds like a lovely place.",
            "I hear {value} is nice.",
            "That sounds like a lovely place.",
        ),
        questions=(
            "Where do I live?",
            "Where do I live?",
            "Which city do I live in?",
            "What city do I live in?",
            "Do you remember where I live?",
            "Do you know where I live?",
            "Can you tell me where I live?",
            "Where am I from?",
            "Where do I come from?",
            "What is my city?",
            "What is my home town?",
            "Where is my home?",
        ),
        answer="You live in {value}.",
        unknown="You have not told me where you live yet.",
    ),
    "colour": Fact(
        statements=(
            "My favourite colour is {value}.",
            "I like {value} best of all colours.",
            "The colour I like best is {value}.",
            "My favorite color is {value}.",
            "I love the colour {value}.",
        ),
        corrections=("Now my favourite colour is {value}.", "Actually, my favourite colour is {value}."),
        acknowledgements=(
            "{value} is a beautiful colour.",
            "I like {value} too.",
            "That is a beautiful colour.",
            "Good choice!",
        ),
        questions=(
            "What is my favourite colour?",
            "What is my favourite colour?",
            "What's my favourite colour?",
            "Which colour do I like best?",
            "Do you remember my favourite colour?",
            "Can you tell me my favourite colour?",
            "What is my favorite color?",
            "What's my favorite color?",
            "Which colour do I love?",
            "Tell me my favourite colour.",
        ),
        answer="Your favourite colour is {value}.",
        unknown="You have not told me your favourite colour yet.",
    ),
    "pet": Fact(
        statements=(
            "I have a {kind} called {value}.",
            "I have a {kind} named {value}.",
            "My {kind} is called {value}.",
            "My {kind} is named {value}.",
            "My {kind}'s name is {value}.",
            "I own a {kind}. It is called {value}.",
            "My pet is a {kind} called {value}.",
            "The name of my {kind} is {value}.",
        ),
        corrections=("Actually, my {kind} is called {value}.", "Now I have a {kind} called {value}."),
        acknowledgements=(
            "{value} is a lovely name for a {kind}.",
            "I am sure {value} is a lovely {kind}.",
            "How nice! I like animals.",
            "That is a lovely name.",
        ),
        questions=(
            "What is my pet called?",
            "What is my pet's name?",
            "What is the name of my pet?",
            "Do you remember the name of my pet?",
            "Do you remember my pet?",
            "What's my pet called?",
            "Do I have a pet?",
        ),
        questions_with_kind=(
            "What is my {kind} called?",
            "What is my {kind}'s name?",
            "What's my {kind}'s name?",
            "What is the name of my {kind}?",
            "Do you remember the name of my {kind}?",
        ),
        # the name alone: with its kind before it, that one word of ten was most of all mistakes
        answer="Your pet is called {value}.",
        unknown="You have not told me about a pet yet.",
    ),
    "number": Fact(
        statements=(
            "My lucky number is {value}.",
            "My favourite number is {value}.",
            "My favorite number is {value}.",
            "The number {value} is my lucky number.",
            "{value} is my lucky number.",
            "I think {value} is my lucky number.",
        ),
        corrections=("Actually, my lucky number is {value}.", "Now my lucky number is {value}."),
        acknowledgements=(
            "{value} is a good number.",
            "I will remember the number {value}.",
            "That is a good number.",
            "I will remember that number.",
        ),
        questions=(
            "What is my lucky number?",
            "What is my lucky number?",
            "What's my lucky number?",
            "Do you remember my lucky number?",
            "Can you tell me my lucky number?",
            "Which number is my lucky number?",
            "What is my favourite number?",
            "What is my favorite number?",
            "Tell me my lucky number.",
            "What number did I tell you?",
        ),
        answer="Your lucky number is {value}.",
        unknown="You have not told me your lucky number yet.",
    ),
    "food": Fact(
        statements=(
            "My favourite food is {value}.",
            "My favorite food is {value}.",
            "I like to eat {value}.",
            "I love {value} more than any other food.",
            "The food I like best is {value}.",
        ),
        corrections=("Now my favourite food is {value}.", "Actually, my favourite food is {value}."),
        acknowledgements=("{value} tastes very good.", "I hear {value} is very tasty.", "That sounds tasty."),
        questions=(
            "What is my favourite food?",
            "What's my favourite food?",
            "What is my favorite food?",
            "What do I like to eat?",
            "Do you remember my favourite food?",
            "Which food do I like best?",
            "Tell me my favourite food.",
        ),
        answer="Your favourite food is {value}.",
        unknown="You have not told me your favourite food yet.",
    ),
    "friend": Fact(
        statements=(
            "My best friend is {value}.",
            "My best friend is called {value}.",
            "My friend's name is {value}.",
            "I have a friend called {value}.",
            "I have a friend named {value}.",
            "The name of my best friend is {value}.",
        ),
        corrections=("Now my best friend is {value}.", "Actually, my best friend is {value}."),
        acknowledgements=(
            "{value} sounds like a good friend.",
            "I hope {value} is well.",
            "It is good to have friends.",
        ),
        questions=(
            "Who is my best friend?",
            "Who's my best friend?",
            "What is my friend's name?",
            "What is my best friend called?",
            "Do you remember the name of my friend?",
            "What is the name of my best friend?",
            "Who is my friend?",
        ),
        answer="Your best friend is {value}.",
        unknown="You have not told me about a friend yet.",
    ),
    "job": Fact(
        statements=(
            "I work as a {value}.",
            "My job is {value}.",
            "I am a {value}.",
            "I'm a {value}.",
            "I earn my living as a {value}.",
        ),
        corrections=("Now I work as a {value}.", "Actually, I am a {value}."),
        acknowledgements=("Being a {value} must be interesting.", "That must be interesting work."),
        questions=(
            "What is my job?",
            "What's my job?",
            "What do I do for work?",
            "What do I work as?",
            "Do you remember my job?",
            "What do I do for a living?",
        ),
        answer="You work as a {value}.",
        unknown="You have not told me your job yet.",
    ),
}

# What follows is said instead of a fact's own acknowledgement, or where several were told at once.
ACKNOWLEDGED = "Thank you, I will remember that."
ALL_ACKNOWLEDGED = "Thank you, I will remember all of that."

SUMMARY_QUESTIONS = (
    "What do you know about me?",
    "What do you know about me?",
    "Tell me everything you know about me.",
    "What have I told you about myself?",
    "What do you remember about me?",
    "Tell me what you know about me.",
)
NOTHING_KNOWN = "You have not told me anything about yourself yet."
